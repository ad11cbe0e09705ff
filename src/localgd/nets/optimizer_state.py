"""What an optimizer remembers of each parameter: averaged, kept, or forgotten at a sync."""

from __future__ import annotations

from typing import Any, Literal

from localgd.errors import extra, listing
from localgd.nets.places import Places

with extra("torch", "torch"):
    import torch
    from torch import optim

Rule = Literal["average", "keep", "reset"]

ADAM = ("exp_avg", "exp_avg_sq")
KEYS: dict[type, tuple[str, ...]] = {
    optim.SGD: ("momentum_buffer",),
    optim.Adam: (*ADAM, "max_exp_avg_sq"),
    optim.AdamW: (*ADAM, "max_exp_avg_sq"),
    optim.RAdam: ADAM,
    optim.Adamax: ("exp_avg", "exp_inf"),
    optim.Adagrad: ("sum",),
    optim.Adadelta: ("square_avg", "acc_delta"),
    optim.RMSprop: ("square_avg", "momentum_buffer", "grad_avg"),
}
"""Tensors of a parameter's shape that each optimizer keeps, whether or not a setting asks for them."""

ASKED = {"momentum_buffer": "momentum", "max_exp_avg_sq": "amsgrad", "grad_avg": "centered"}
"""Settings of a group without which there is no such tensor."""


def kept_by(optimizer: Any) -> list[tuple[Any, list[str]]]:
    """Return each parameter of an optimizer, and names of the tensors that its settings have it keep.

    Examples
    --------
    >>> weight = torch.nn.Parameter(torch.zeros(2))
    >>> [keys for _, keys in kept_by(optim.SGD([weight], lr=0.1, momentum=0.9))]
    [['momentum_buffer']]
    """
    known = KEYS.get(type(optimizer), ())
    return [
        (parameter, [key for key in known if key not in ASKED or group.get(ASKED[key])])
        for group in optimizer.param_groups
        for parameter in group["params"]
    ]


class OptimizerState:
    """The tensors that an optimizer keeps, in a layout that its type fixes, whichever of them a rank has by now.

    A tensor that a rank lacks counts as 0, which is what it stands for, if another rank has it; a count of steps is the
    mean of the ranks', rounded. Ranks that took no step are not asked.
    """

    def __init__(self, optimizer: Any, places: Places, rule: Rule) -> None:
        self.optimizer, self.rule = optimizer, rule
        if rule not in {"average", "keep", "reset"}:
            raise ValueError(f"optimizer_state must be 'average', 'keep' or 'reset', got {rule!r}")
        if rule == "average" and type(optimizer) not in KEYS:
            known = listing(sorted(kind.__name__ for kind in KEYS))
            raise ValueError(
                f"optimizer_state='average' knows what {known} remember, and not {type(optimizer).__name__}; use 'keep'"
            )
        trained = {id(tensor): name for name, tensor, _, _ in places}
        self._slots: list[tuple[str, Any, str]] = []
        strangers = 0
        for parameter, keys in kept_by(optimizer):
            strangers += id(parameter) not in trained and parameter.requires_grad
            self._slots += [(trained.get(id(parameter), ""), parameter, key) for key in keys]
        if strangers:
            raise ValueError(
                f"optimizer trains {strangers} parameters that are not of the model; put all of them in one module"
            )
        self._slots = [slot for slot in self._slots if slot[0]] if rule == "average" else []
        self._counted = list({id(parameter): parameter for _, parameter, _ in self._slots}.values())
        self.size = sum(parameter.numel() + 1 for _, parameter, _ in self._slots) + len(self._counted)

    def pack(self, out: Any, share: float) -> None:
        """Write every tensor times this rank's share, whether it is there, and counts of steps."""
        out.zero_()
        at = 0
        for _, parameter, key in self._slots:
            held = self.optimizer.state.get(parameter, {}).get(key)
            if held is not None:
                torch.mul(held.detach(), share, out=out[at : at + parameter.numel()].view(parameter.shape))
                out[at + parameter.numel()] = share
            at += parameter.numel() + 1
        for parameter in self._counted:
            out[at] = share * float(self.optimizer.state.get(parameter, {}).get("step", 0))
            at += 1

    def apply(self, total: Any, shares: float) -> None:
        """Take the mean, of shares that sum to this, or forget; nothing moved if it is 0."""
        if self.rule == "reset" and shares:
            self.optimizer.state.clear()
        at = 0
        for _, parameter, key in self._slots if shares else ():
            end = at + parameter.numel()
            if float(total[end]) > 0:
                state = self.optimizer.state[parameter]
                if state.get(key) is None:
                    state[key] = torch.empty_like(parameter, memory_format=torch.preserve_format)
                state[key].copy_(total[at:end].view(parameter.shape)).div_(shares)
            at = end + 1
        for parameter in self._counted if shares else ():
            steps = round(float(total[at]) / shares)
            at += 1
            state = self.optimizer.state.get(parameter, {})
            if "step" in state or (steps and type(self.optimizer) is not optim.SGD):
                self.optimizer.state[parameter]["step"] = _like(state.get("step"), steps)


def _like(before: Any, steps: int) -> Any:
    """Return a count of steps in the form of the one before: a tensor, unless it was a number."""
    if before is None:
        return torch.tensor(float(steps))
    return before.fill_(steps) if isinstance(before, torch.Tensor) else steps
