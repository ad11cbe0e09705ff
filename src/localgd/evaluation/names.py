"""Names that a command line offers before anything is computed."""

from __future__ import annotations

from typing import Literal, TypeAlias

Scoring: TypeAlias = Literal[
    "accuracy", "balanced_accuracy", "f1", "f1_macro", "neg_log_loss", "roc_auc", "roc_auc_ovr"
]
"""What a model may be scored by. The names are scikit-learn's, and so is what they mean: more is better."""
