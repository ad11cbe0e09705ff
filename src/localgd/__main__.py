"""``python -m localgd`` is the command ``localgd``; so ``torchrun -m localgd`` can start it."""

from localgd.cli import main

main()
