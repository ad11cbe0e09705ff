"""What a sync moves is laid out at the beginning: other parts of a model or an optimizer since then are noticed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from localgd.errors import listing
from localgd.nets.optimizer_state import kept_by


class Tensor(NamedTuple):
    """A tensor of a model, and what of it may not change."""

    itself: Any
    trained: bool
    kind: str


class Layout:
    """The tensors of a model, and what its optimizer keeps of them, as they were at the beginning."""

    def __init__(self, model: Any, optimizer: Any) -> None:
        self._model, self._optimizer = model, optimizer
        self._tensors, self._kept = _tensors_of(model), _kept_by(optimizer)

    def changed(self) -> str:
        """Return in words what is not as it was, empty if all is."""
        return listing((*self._changed_model(), *self._changed_optimizer()))

    def _changed_model(self) -> Iterator[str]:
        now = _tensors_of(self._model)
        yield from (f"{name} was added to the model" for name in now if name not in self._tensors)
        for name, before in self._tensors.items():
            tensor = now.get(name)
            if tensor is None:
                yield f"{name} was taken out of the model"
            elif tensor.itself is not before.itself:
                yield f"{name} is another tensor, where the one before was to be written to"
            elif tensor.trained != before.trained:
                yield f"{name} requires {'a' if tensor.trained else 'no'} gradient now"
            elif tensor.kind != before.kind:
                yield f"{name} is {tensor.kind}, and was {before.kind}"

    def _changed_optimizer(self) -> Iterator[str]:
        now = _kept_by(self._optimizer)
        if now.keys() == self._kept.keys() and all(now[key][1] == self._kept[key][1] for key in now):
            return
        names = {id(tensor.itself): name for name, tensor in _tensors_of(self._model).items()}
        for key in self._kept | now:
            name = names.get(key, "a parameter that is not of the model")
            if key not in self._kept:
                yield f"{name} was given to the optimizer"
            elif key not in now:
                yield f"{name} was taken from the optimizer"
            elif now[key][1] != self._kept[key][1]:
                keeps, kept = now[key][1] or "nothing", self._kept[key][1] or "nothing"
                yield f"the optimizer keeps {keeps} of {name}, and kept {kept}"


def _tensors_of(model: Any) -> dict[str, Tensor]:
    named = (*model.named_parameters(), *model.named_buffers())
    return {name: Tensor(t, t.requires_grad, f"{t.dtype} {tuple(t.shape)}") for name, t in named}


def _kept_by(optimizer: Any) -> dict[int, tuple[Any, str]]:
    """Return each parameter, held so that no other takes its id, and what is kept of it."""
    return {id(parameter): (parameter, ", ".join(keys)) for parameter, keys in kept_by(optimizer)}
