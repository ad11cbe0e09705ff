"""Examples: what a node holds to train a network on, any dataset of torch."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from localgd.data.partition import ByFeature, ByLabel, Dirichlet, Partitioner, dealt, partitioner
from localgd.errors import check_kind, extra, said
from localgd.limits import Limits

with extra("torch", "torch"):
    import torch
    from torch.utils.data import Subset, TensorDataset, default_collate


class Tensors(NamedTuple):
    """Tensors with an axis for the examples in front, and which of them are a node's, (n,)."""

    parts: tuple[Any, ...]
    places: Any


@dataclass(frozen=True, eq=False)
class Examples:
    """One node's examples; they never leave the node.

    Parameters
    ----------
    node_id : str
        Name of the node; reports are added up in the order of these names.
    data : Dataset
        Any `torch.utils.data.Dataset` with a length, such as a TensorDataset or a Subset of one: ``data[i]`` is one
        example, as (input, class), and a batch is what a DataLoader makes of several.
    limits : Limits, optional
        What the node's operator allows; over Flower, steps and sizes of a round.

    Raises
    ------
    TypeError, ValueError
        If `data` has no length, or no example.

    Examples
    --------
    >>> examples = Examples("a", TensorDataset(torch.eye(3), torch.tensor([0, 1, 1])))
    >>> examples.n_samples, examples.batch(np.array([2, 0]))[1].tolist()
    (3, [1, 0])
    """

    node_id: str
    data: Any
    limits: Limits | None = field(default=None, kw_only=True, repr=False)

    def __post_init__(self) -> None:
        """Check name and length once."""
        if not isinstance(self.node_id, str):
            raise ValueError(f"node_id must be a text, got {self.node_id!r}")  # noqa: TRY004  a bad value
        for name in ("__len__", "__getitem__"):
            check_kind(f"data of node {self.node_id!r}", self.data, name, "a torch Dataset with a length")
        if not self.n_samples:
            raise ValueError(f"node {self.node_id!r} has no example; give it at least one or drop it")

    @cached_property
    def n_samples(self) -> int:
        """Number of examples, asked for once: a dataset that is lost later fails in the rounds that read it."""
        try:
            return len(self.data)
        except Exception as error:
            raise ValueError(
                f"node {self.node_id!r}: its data has no length that can be known: {said(error)}"
            ) from error

    @property
    def n_rows(self) -> int:
        """Number of examples, as rows."""
        return self.n_samples

    @property
    def total(self) -> float:
        """What the node weighs by its examples."""
        return float(self.n_samples)

    @cached_property
    def tensors(self) -> Tensors | None:
        """The tensors that the examples are taken from, and their places there; None of any other dataset."""
        data, places = self.data, None
        while type(data) is Subset:
            indices = torch.as_tensor(np.asarray(data.indices, dtype=np.int64))
            places = indices if places is None else indices[places]
            data = data.dataset
        if type(data) is not TensorDataset:
            return None
        return Tensors(data.tensors, torch.arange(len(data)) if places is None else places)

    def batch(self, places: NDArray[np.int64]) -> Any:
        """Return the examples at these places, as a DataLoader would."""
        if self.tensors is not None:
            chosen = self.tensors.places[torch.tensor(places)]
            return [part[chosen] for part in self.tensors.parts]
        many = getattr(self.data, "__getitems__", None)
        at = places.tolist()
        return default_collate(many(at) if many else [self.data[place] for place in at])

    def fingerprint(self) -> str:
        """Return a digest that the node itself knows its examples by: of tensors all numbers, else kind and length."""
        return self._digest

    @cached_property
    def _digest(self) -> str:
        digest = hashlib.blake2b(f"{type(self.data).__name__} {self.n_samples}".encode(), digest_size=16)
        parts, places = ((), None) if self.tensors is None else self.tensors
        for part in parts:
            own = part[places].detach().cpu().contiguous()
            digest.update(f"{own.dtype} {tuple(own.shape)}".encode())
            digest.update(own.reshape(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()


class _Labelled(NamedTuple):
    """What partitioners look at."""

    n_rows: int
    labels: NDArray[Any] | None
    source: str = "the dataset"


def partition_dataset(
    data: Any, labels: Sequence[Any] | NDArray[Any] | None, how: Partitioner | str, n_nodes: int, *, seed: int = 0
) -> list[Examples]:
    """Split one dataset over nodes called ``node-0``, ``node-1``, … (padded with zeros to sort by number).

    Parameters
    ----------
    data : Dataset
        Any `torch.utils.data.Dataset` with a length; nodes hold a `torch.utils.data.Subset` each.
    labels : (n,) array, or None
        The class of each example, for "by_label" and "dirichlet"; None where nobody looks at it.
    how : Partitioner or str
        As in `localgd.partition`: "iid", "by_label", "dirichlet:0.1", "by_size", …
    n_nodes : int
        Number of nodes, from 1 to the number of examples.
    seed : int, at least 0, default 0
        The same seed gives the same split.

    Returns
    -------
    list of Examples
        Disjoint, together all examples, none empty.

    Raises
    ------
    ValueError
        If `n_nodes` is out of its range, labels are lacking or not as many as examples, or a partitioner needs columns.

    Examples
    --------
    >>> data = TensorDataset(torch.eye(5), torch.tensor([0, 1, 0, 1, 0]))
    >>> [(node.node_id, node.n_samples) for node in partition_dataset(data, data.tensors[1], "by_label", 2)]
    [('node-0', 3), ('node-1', 2)]
    """
    check_kind("data", data, "__len__", "a torch Dataset with a length")
    given = None if labels is None else np.asarray(labels)
    if given is not None and given.shape != (len(data),):
        raise ValueError(f"labels must be one a row of data, {len(data)}, got an array of shape {given.shape}")
    chosen = partitioner(how) if isinstance(how, str) else how
    if isinstance(chosen, ByFeature):
        raise ValueError(  # noqa: TRY004  a bad value
            f"how={how!r} looks at a column, which a dataset has not; take another partitioner"
        )
    if given is None and isinstance(chosen, ByLabel | Dirichlet):
        raise ValueError(f"labels must be given for how={how!r}: the class of each example")
    blocks = dealt(_Labelled(len(data), given), chosen, n_nodes, seed=seed)
    return [Examples(name, Subset(data, block.tolist())) for name, block in blocks]
