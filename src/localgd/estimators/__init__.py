"""scikit-learn estimators: linear models over groups of rows, and their C by cross-validation."""

from __future__ import annotations

from localgd.estimators.classifier import LocalGDClassifier
from localgd.estimators.regressor import LocalGDRegressor
from localgd.estimators.tuned import LocalGDClassifierCV

__all__ = ["LocalGDClassifier", "LocalGDClassifierCV", "LocalGDRegressor"]
