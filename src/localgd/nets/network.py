"""Networks as a problem of the ordinary loop: nodes hold examples, and local steps train a module of torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import BuiltinFunctionType, FunctionType
from typing import Any, ClassVar

import numpy as np

from localgd.core import Engine, Field, Message, Report, Schema, Task
from localgd.duals.dual import Dual
from localgd.errors import check_mapping, check_whole, extra, from_all
from localgd.limits import RefusedError
from localgd.nets.examples import Examples
from localgd.nets.replica import AT_WORK, Replica, drawn
from localgd.problems.certificate import Certificate
from localgd.problems.metrics import Weighting, check_weighting, node_weight
from localgd.problems.sizes import DataSizes
from localgd.rounding import FloatArray

with extra("torch", "torch"):
    from torch import nn

UNPROVED = "no theorem says which network local steps lead to; examples set aside say how good it is"

_KNOWN: dict[str, Network] = {}
"""Networks of this process that have a name, the last of each: a node of Flower is sent that, and has the network."""


@dataclass(frozen=True, eq=False)
class NetProof:
    """What is proved of a network: nothing, in words."""

    certificate: Certificate = field(default_factory=lambda: Certificate(kind="network", reason=UNPROVED))


@dataclass(frozen=True, repr=False)
class Network:
    """A network trained over nodes that hold `Examples`, by every method that averages.

    The model (d,) is the module's trained parameters, then the buffers that training moves. Parameters take whatever
    step the merge takes; statistics of a batch normalisation become those of the union of the batches, nodes weighing
    as in the mean, and counters the largest: no momentum of a server ever acts on them.

    Parameters
    ----------
    build : callable
        ``build()`` returns the module, the same each time; called once in a process, with torch's generator at `seed`.
    loss : callable
        ``loss(model, batch)`` returns the mean loss over a batch, one number; a batch is what a DataLoader yields.
    seed : int, at least 0
        Of the numbers that training begins with.
    buffers : mapping from name to "mean", "max" or "equal", optional
        Rules for other buffers, by name or pattern; those without one must not change.

    Raises
    ------
    TypeError, ValueError
        If a parameter is of the wrong kind; later, if the module has a part without a rule, by name.

    Examples
    --------
    >>> from torch import nn
    >>> def loss(model, batch):
    ...     return nn.functional.cross_entropy(model(batch[0]), batch[1])
    >>> network = Network(lambda: nn.Linear(2, 3), loss)
    >>> network.kind, network.dtype, network.start().shape
    ('network', 'float32', (9,))
    """

    kind: ClassVar[str] = "network"
    certified: ClassVar[bool] = False
    by_margins: ClassVar[bool] = False
    begin: ClassVar[type[NetProof]] = NetProof

    build: Callable[[], Any]
    loss: Callable[[Any, Any], Any]
    seed: int = 0
    buffers: Any = ()

    def __post_init__(self) -> None:
        """Check every field once; a mapping becomes pairs."""
        for name, what, example in (
            ("build", "a function that returns a module", "lambda: nn.Linear(2, 3)"),
            (
                "loss",
                "a function of a model and a batch",
                "lambda model, batch: F.cross_entropy(model(batch[0]), batch[1])",
            ),
        ):
            given: Any = getattr(self, name)
            if not callable(given) or isinstance(given, nn.Module):
                shown = type(given).__name__ if isinstance(given, nn.Module) else repr(given)
                raise TypeError(f"{name} must be {what}, as {example}; got {shown}")
        check_whole("seed", self.seed, 0)
        given = dict(self.buffers) if isinstance(self.buffers, tuple) else self.buffers
        check_mapping("buffers", given)
        object.__setattr__(self, "buffers", tuple(sorted((given or {}).items())))
        if self._named:
            _KNOWN[repr(self)] = self

    def __repr__(self) -> str:
        rules = f", buffers={dict(self.buffers)}" if self.buffers else ""
        return f"Network({_name(self.build)}, {_name(self.loss)}, seed={self.seed}{rules})"

    @property
    def _named(self) -> bool:
        """Whether its name is that of no other: lambdas, functions of functions and objects without one have none."""
        return "<" not in repr(self)

    def to_dict(self) -> dict[str, str]:
        """Return what a node of Flower knows it by: its name; functions are not sent."""
        if not self._named:
            raise TypeError(
                f"{self!r} cannot be named to a node elsewhere: make build and loss functions, or frozen dataclasses, "
                "of a module that its app imports"
            )
        return {"name": repr(self)}

    @staticmethod
    def from_dict(entry: Mapping[str, Any]) -> Network:
        """Return the network of that name that this process has made; a RefusedError if it has none."""
        found = _KNOWN.get(str(entry["name"]))
        if found is None:
            raise RefusedError(f"there is no {entry['name']!s:.200} here: make the same one in the node's app")
        return found

    @cached_property
    def replica(self) -> Replica:
        """The module of this process, and its place in a vector."""
        with AT_WORK, drawn(self.seed):
            return Replica(self.build(), dict(self.buffers))

    @property
    def dtype(self) -> str:
        """What its numbers travel as: float32 if no tensor has more bits."""
        return self.replica.dtype

    def module(self, w: FloatArray) -> Any:
        """Return a new module with the numbers of a model (d,), ready to be used: in evaluation mode.

        Parameters
        ----------
        w : (d,) float64 array
            As `localgd.Run` has it.
        """
        with drawn(self.seed):
            made = Replica(self.build(), dict(self.buffers))
        made.load(self._fitting(w))
        return made.model.eval()

    def _fitting(self, w: Any) -> FloatArray:
        given = np.asarray(w)
        if given.shape != (self.replica.size,):
            raise ValueError(f"w must have the shape ({self.replica.size},), as the module has, got {given.shape}")
        return given

    def among(self, versus: int) -> Network:  # noqa: ARG002  an example is a sample
        """Return it."""
        return self

    def sizes(self, engine: Engine) -> DataSizes:
        """Return the number of examples of all nodes and of numbers of the model, by one round."""
        return DataSizes(from_all(engine, NetSizes(), Message()).n_rows, self.replica.size, 0.0, 1)

    def start(self) -> FloatArray:
        """Return the numbers that the module is built with."""
        with AT_WORK, drawn(self.seed):
            return Replica(self.build(), dict(self.buffers)).read()

    def steps(self, task: Any, engine: Engine) -> Task:
        """Return the task of local steps for this network: `NetSteps`, or with the settings of a method's own steps."""
        from localgd.nets.net_steps import steps_on  # noqa: PLC0415  which knows networks

        return steps_on(self, task, engine)

    def weighting_for(self, chosen: Weighting | None) -> Weighting:
        """Return how a method weighs the nodes: as it was told, else by their examples."""
        return "num-examples" if chosen is None else chosen

    def scores(self, report: Report, state: Any) -> tuple[float, float]:  # noqa: ARG002
        """Return loss and accuracy of the shared model; NaN where examples have no classes."""
        sums = report.sums
        right = float(sums["correct"]) / report.n_rows if "correct" in sums else math.nan
        return float(sums["loss"]) / float(sums["weight"]), right

    def look(self, task: Any) -> Task:
        """Return the task of a round that only looks at the model, for a method of this task."""
        return NetLook(self, self.weighting_for(task.weighted_by))

    def beginning(self, state: Any) -> Message:
        """Return the message for a first look at the model."""
        return Message(state.round, state.w)

    def prove(self, proof: NetProof, state: Any, report: Report, duals: Sequence[Dual], *, whole: bool) -> NetProof:  # noqa: ARG002
        """Return that nothing is proved, and how nodes were trained."""
        from localgd.nets.at_once import how  # noqa: PLC0415  likewise

        said = how(state.asks)
        return NetProof(replace(proof.certificate, reason="; ".join([UNPROVED, *said])))

    def unproved(self, proof: NetProof, state: Any) -> bool:  # noqa: ARG002
        """Return False: no dual vector speaks of a network."""
        return False

    def settled(self, state: Any, report: Report) -> Any:
        """Return a server's state with the buffers of the nodes put together, and rounded as the module is."""
        from localgd.nets.at_once import decided  # noqa: PLC0415  likewise

        with AT_WORK:
            made = self.replica
            made.load(state.w)
            if any(made.widths):
                made.gather(report.sums["buffers"], report.maxs["counters"], float(report.sums["weight"]))
            model = Dual(made.read())
        return replace(state, model=model, asks=decided(state.asks, report))


def _name(function: Any) -> str:
    """Return what a function goes by: where it lives and its name; of anything else its repr."""
    if isinstance(function, FunctionType | BuiltinFunctionType | type):
        return f"{function.__module__}.{function.__qualname__}"
    return repr(function)


def check_examples(shard: Any) -> None:
    """Refuse what is no Examples."""
    if not isinstance(shard, Examples):
        raise TypeError(
            f"this node holds {type(shard).__name__}, not examples for a network: give "
            "localgd.nets.Examples(node_id, dataset)"
        )


@dataclass(frozen=True)
class NetSizes:
    """Report how many examples a node holds."""

    def schema(self, message: Message) -> Schema:  # noqa: ARG002  the same on any
        """Return nothing beyond that number."""
        return {}

    def run(self, message: Message, shard: Any, state: None) -> tuple[Report, None]:  # noqa: ARG002  needs no message
        """Return it."""
        check_examples(shard)
        return Report(1, shard.n_samples), state


NET_METRICS: Schema = {"weight": Field("sum"), "loss": Field("sum"), "correct": Field("sum", optional=True)}
"""How a network stands on a node."""


def standing(network: Network, shard: Examples, weight: float) -> Report:
    """Return how the module stands: the sums ``weight`` p_m, ``loss`` p_m f_m and, of classes, ``correct``."""
    found = network.replica.look(shard, network.loss)
    right = {} if found.right is None else {"correct": float(found.right)}
    return Report(1, shard.n_samples, {"weight": weight, "loss": weight * found.loss / shard.n_samples, **right})


@dataclass(frozen=True)
class NetLook:
    """Report how the shared network stands on a node, nothing else."""

    network: Network
    weighted_by: Weighting = "num-examples"

    def __post_init__(self) -> None:
        check_weighting(self.weighted_by)

    def schema(self, message: Message) -> Schema:  # noqa: ARG002  the same on any
        """Return `NET_METRICS`."""
        return NET_METRICS

    def run(self, message: Message, shard: Any, state: None) -> tuple[Report, None]:
        """Return `standing`."""
        check_examples(shard)
        with AT_WORK, drawn(self.network.seed):
            self.network.replica.load(message.w)
            return standing(self.network, shard, float(node_weight(shard, self.weighted_by))), state
