"""``python -m localgd`` is the command ``localgd``; so ``torchrun -m localgd`` can start it."""

import sys

from localgd.cli import main

sys.exit(main())
