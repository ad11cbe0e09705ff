"""Methods by name: a task for the nodes and a merge for the server, and the choice among them."""

from __future__ import annotations

NAMES = (
    *("auto", "local-gd", "local-sgd", "modified-local-gd", "normalised-local-gd", "fedexp", "fedprox", "slowmo"),
    *("consensus", "interior-point", "newton", "lbfgs", "scaffold"),
    *("normal-equations", "conjugate-gradients"),
)
"""What `table` knows, for whoever only wants to say it."""
