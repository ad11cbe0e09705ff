"""The local steps of a rank since the last sync: how many, on how many examples, and whose they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from localgd.rounding import is_whole

STRANGE = 2
"""Steps in a row that another optimizer made, from which it is said: weights that are put back once are no step."""


class Steps:
    """Counts what ``step(batch)`` is told, and, by a hook of torch's, the steps that the optimizer makes.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
        That moves the model. One that wraps another, without hooks of its own, is not watched.
    """

    def __init__(self, optimizer: Any) -> None:
        self.optimizer = optimizer
        self.number, self.examples, self.batch = 0, 0, 0.0
        self._made, self._strange = 0, 0
        watched = hasattr(optimizer, "_optimizer_step_post_hooks")
        self._hook = optimizer.register_step_post_hook(self._count) if watched else None
        self._versions = self._now()

    def _count(self, optimizer: Any, args: Any, options: Any) -> None:  # noqa: ARG002  what torch calls a hook with
        self._made += 1

    def _now(self) -> list[tuple[Any, int]]:
        """Return each parameter of the optimizer, and how often it was written to."""
        groups = self.optimizer.param_groups if self._hook else ()
        return [(tensor, tensor._version) for group in groups for tensor in group["params"]]  # noqa: SLF001  no other name

    def begin(self) -> None:
        """Begin to count, where all ranks are together."""
        self.number, self.examples, self._made, self._versions = 0, 0, 0, self._now()

    def add(self, batch: Any) -> None:
        """Count a step.

        Raises
        ------
        ValueError
            If the batch is none, or another optimizer than this one makes the steps.
        """
        self.examples += 0 if batch is None else examples_in(batch)
        self.number += 1
        if self._made:
            self._strange = 0
        elif any(tensor._version != version for tensor, version in self._versions):  # noqa: SLF001
            self._strange, self._versions = self._strange + 1, self._now()
        if self._strange >= STRANGE:
            raise ValueError(
                f"parameters moved in {self._strange} steps in which the optimizer that LocalSGD was given, "
                f"{type(self.optimizer).__name__}, made none: another one trains them, whose momentum would not be "
                "averaged, nor saved; make another LocalSGD with that one, in all ranks"
            )

    def mean_batch(self) -> float:
        """Return the mean batch size, since the last sync or, if there was no step, as it was before."""
        if self.number:
            self.batch = self.examples / self.number
        return self.batch

    def close(self) -> None:
        """Leave the optimizer as it was found."""
        if self._hook is not None:
            self._hook.remove()


def examples_in(batch: Any) -> int:
    """Return how many examples a batch holds.

    Examples
    --------
    >>> import torch
    >>> examples_in(3), examples_in({"x": torch.zeros(5, 2), "y": torch.zeros(5)})
    (3, 5)
    """
    if is_whole(batch, 0):
        return int(batch)
    if getattr(batch, "ndim", 0):
        return int(batch.shape[0])
    parts = batch.values() if isinstance(batch, Mapping) else batch if isinstance(batch, list | tuple) else ()
    for part in parts:
        if not isinstance(part, int) and (found := examples_in(part)):
            return found
    one = " of one number, as a loss is: give it the batch, step((x, y))" if hasattr(batch, "ndim") else ""
    got = repr(batch) if isinstance(batch, int | float) else f"{type(batch).__name__}{one}"
    raise ValueError(f"step() takes a number of examples, or tensors, the first with a row for each; got {got}")
