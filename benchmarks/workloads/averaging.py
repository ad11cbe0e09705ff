"""Local-GD and Local-SGD: a certificate every round, beside loops that certify nothing."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from localgd import InProcess, SampledNodes, Shard, local_gd, local_sgd, train
from workloads.workload import Contender, Limit, Run, Workload

LR = 4.0


@dataclass(frozen=True)
class Size:
    """Nodes of n rows and d columns, local steps, rounds, share of the nodes in a round, share of flipped labels."""

    nodes: int
    n: int
    d: int
    local_steps: int
    rounds: int
    share: float = 1.0
    flipped: float = 0.0

    def rows(self) -> Any:
        """Return signed rows of length about 1, (nodes, n, d), along a planted direction."""
        rng = np.random.default_rng(0)
        x = rng.standard_normal((self.nodes, self.n, self.d)) / np.sqrt(self.d)
        signs = np.sign(x @ rng.standard_normal(self.d))
        signs[rng.random(signs.shape) < self.flipped] *= -1
        x *= signs[:, :, None]
        return x

    @property
    def ids(self) -> list[str]:
        """Names of the nodes, in the order of the rows."""
        return [f"node-{m:06d}" for m in range(self.nodes)]

    def __str__(self) -> str:
        part = "" if self.share == 1 else f", {self.share:.0%} a round"
        return f"{self.nodes:,} × {self.n:,} × {self.d:,}, L = {self.local_steps}, {self.rounds} rounds{part}"


SIZES = {
    "W1": Size(10, 30, 2000, 100, 100),
    "W2": Size(200, 50, 500, 50, 50),
    "W3": Size(8, 20_000, 200, 10, 20, flipped=0.05),
    "W5": Size(8, 20_000, 200, 100, 20, flipped=0.05),
    "W6": Size(100_000, 20, 50, 10, 5, share=0.1),
}
BATCH = 32
SPARSE = Size(8, 2_000, 100_000, 20, 20)


def ours(size: Size, method: Any) -> Contender:
    """Return localgd with a method."""

    def lay_out(x: Any) -> Run:
        engine = InProcess(Shard(node, own) for node, own in zip(size.ids, x, strict=True))
        nodes = None if size.share == 1 else SampledNodes(size.share)
        return lambda: train(engine, method, n_rounds=size.rounds, nodes=nodes).w

    return lay_out


def plain(size: Size) -> Contender:
    """Return the loop that anybody would write down in NumPy."""

    def lay_out(x: Any) -> Run:
        def run() -> Any:
            w = np.zeros(size.d)
            for _ in range(size.rounds):
                ends = []
                for own in x:
                    v = w.copy()
                    for _ in range(size.local_steps):
                        v += LR / size.n * (own.T @ (1.0 / (1.0 + np.exp(own @ v))))
                    ends.append(v)
                w = np.mean(ends, axis=0)
            return w

        return run

    return lay_out


def batched(size: Size) -> Contender:
    """Return all nodes at once in the space of their Gram matrices, the fastest that NumPy does."""

    def lay_out(x: Any) -> Run:
        whole = None if size.share < 1 else x @ x.transpose(0, 2, 1)

        def run() -> Any:
            w = np.zeros(size.d)
            for round_ in range(size.rounds):
                own, gram = x, whole
                if whole is None:
                    own = x[np.sort([int(name[5:]) for name in SampledNodes(size.share)(round_, size.ids)])]
                    gram = own @ own.transpose(0, 2, 1)
                margins = own @ w
                a = np.zeros(margins.shape)
                for _ in range(size.local_steps):
                    a += LR / size.n / (1.0 + np.exp(margins + np.matmul(gram, a[:, :, None])[:, :, 0]))
                w = w + a.ravel() @ own.reshape(-1, size.d) / len(own)
            return w

        return run

    return lay_out


def compiled(size: Size, *, certified: bool) -> Contender:
    """Return the Gram loop that Numba compiles, with what a certificate adds up or without."""

    def lay_out(x: Any) -> Run:
        from workloads.compiled import gram_rounds  # noqa: PLC0415  others do not wait for the compiler

        gram = x @ x.transpose(0, 2, 1)
        stats = np.empty((size.rounds * certified, size.nodes, 4))
        return lambda: gram_rounds(x, gram, size.rounds, size.local_steps, LR, stats)

    return lay_out


def direct(size: Size) -> Contender:
    """Return the compiled loop over rows, one pass a step."""

    def lay_out(x: Any) -> Run:
        from workloads.compiled import direct_rounds  # noqa: PLC0415

        return lambda: direct_rounds(x, size.rounds, size.local_steps, LR)

    return lay_out


def in_torch(size: Size) -> Contender:
    """Return the loop of a tutorial: a linear layer, backward, and an SGD optimizer."""

    def lay_out(x: Any) -> Run:
        import torch  # noqa: PLC0415

        torch.set_num_threads(1)
        nodes = [torch.from_numpy(own) for own in x]

        def run() -> Any:
            w = torch.zeros(size.d, dtype=torch.float64)
            for _ in range(size.rounds):
                ends = []
                for own in nodes:
                    layer = torch.nn.Linear(size.d, 1, bias=False, dtype=torch.float64)
                    layer.weight.data[0] = w
                    optimizer = torch.optim.SGD(layer.parameters(), lr=LR)
                    for _ in range(size.local_steps):
                        optimizer.zero_grad()
                        torch.nn.functional.softplus(-layer(own)[:, 0]).mean().backward()
                        optimizer.step()
                    ends.append(layer.weight.data[0])
                w = torch.stack(ends).mean(dim=0)
            return w.numpy()

        return run

    return lay_out


def batches_of(size: Size, node: str, round_: int) -> Any:
    """Return the batches that localgd draws for a node and round: both take the same steps."""
    rng = np.random.default_rng([0, round_, zlib.crc32(node.encode())])
    passes = -(-size.local_steps * BATCH // size.n)
    chain = np.concatenate([rng.permutation(size.n) for _ in range(passes)])
    return chain[: size.local_steps * BATCH].reshape(size.local_steps, BATCH)


def sgd(size: Size, node_round: Callable[[], Callable[..., Any]]) -> Contender:
    """Return Local-SGD by a function of a node's rows, batches, model and step size."""

    def lay_out(x: Any) -> Run:
        take = node_round()

        def run() -> Any:
            w = np.zeros(size.d)
            for r in range(size.rounds):
                steps = (batches_of(size, node, r) for node in size.ids)
                w = np.mean([take(own, batches, w, LR) for own, batches in zip(x, steps, strict=True)], axis=0)
            return w

        return run

    return lay_out


def numba_sgd() -> Callable[..., Any]:
    """Return the compiled round."""
    from workloads.compiled import sgd_round  # noqa: PLC0415

    return sgd_round


def certified_sgd() -> Callable[..., Any]:
    """Return the compiled round, with what a certificate adds up: the least margin and the losses of all rows."""
    from workloads.compiled import seen, sgd_round  # noqa: PLC0415

    def take(own: Any, batches: Any, w: Any, lr: float) -> Any:
        seen(own, w)
        return sgd_round(own, batches, w, lr)

    return take


def numpy_sgd() -> Callable[..., Any]:
    """Return a round in NumPy."""

    def take(own: Any, batches: Any, w: Any, lr: float) -> Any:
        v = w.copy()
        for batch in batches:
            part = own[batch]
            v += lr / len(batch) * (part.T @ (1.0 / (1.0 + np.exp(part @ v))))
        return v

    return take


def zipf_rows() -> Any:
    """Return a CSR matrix for each node: 80 columns a row, by Zipf's law, along a planted direction."""
    from scipy.sparse import csr_array  # noqa: PLC0415

    rng = np.random.default_rng(0)
    law = 1.0 / np.arange(1, SPARSE.d + 1)
    direction, nodes = rng.standard_normal(SPARSE.d), []
    for _ in range(SPARSE.nodes):
        columns = rng.choice(SPARSE.d, size=(SPARSE.n, 80), p=law / law.sum())
        row = np.repeat(np.arange(SPARSE.n), 80)
        x = csr_array((rng.standard_normal(row.size) / 9, (row, columns.ravel())), shape=(SPARSE.n, SPARSE.d))
        x.sum_duplicates()
        x.data *= np.repeat(np.sign(x @ direction), np.diff(x.indptr))
        nodes.append(x)
    return nodes


def sparse_loop(take: Callable[[], Callable[..., None]], pieces: Callable[[Any], Any]) -> Contender:
    """Return the loop over sparse nodes by a function that moves a model in place."""

    def lay_out(nodes: Any) -> Run:
        step, held = take(), [pieces(x) for x in nodes]

        def run() -> Any:
            w = np.zeros(SPARSE.d)
            for _ in range(SPARSE.rounds):
                total = np.zeros(SPARSE.d)
                for rows in held:
                    v = w.copy()
                    step(rows, v, SPARSE.local_steps, LR)
                    total += v
                w = total / len(held)
            return w

        return run

    return lay_out


def scipy_steps() -> Callable[..., None]:
    """Return steps by SciPy's own products."""

    def take(pair: Any, v: Any, local_steps: int, lr: float) -> None:
        x, transposed = pair
        for _ in range(local_steps):
            v += lr / x.shape[0] * (transposed @ (1.0 / (1.0 + np.exp(x @ v))))

    return take


def numba_csr_steps() -> Callable[..., None]:
    """Return the compiled steps."""
    from workloads.compiled import csr_steps  # noqa: PLC0415

    def take(rows: Any, v: Any, local_steps: int, lr: float) -> None:
        csr_steps(*rows[:3], v, local_steps, lr)

    return take


def c_steps() -> Callable[..., None]:
    """Return the steps in C."""
    from workloads.compiled import c_csr_steps  # noqa: PLC0415

    return c_csr_steps()


def csr_parts(x: Any) -> Any:
    """Return numbers, columns, starts and room for a number a row."""
    return x.data, x.indices.astype(np.uint32), x.indptr.astype(np.int64), np.empty(x.shape[0])


def away(a: Any, b: Any) -> float:
    """Return how far two models are apart, as a part of their length."""
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


def averaging(
    name: str, limits: tuple[Limit, ...], contenders: dict[str, Contender], slow: tuple[str, ...] = ()
) -> Workload:
    """Return a workload of full-batch local steps on dense rows."""
    size = SIZES[name]
    everyone = {"localgd": ours(size, local_gd(local_steps=size.local_steps, lr=LR)), **contenders}
    return Workload(name, str(size), size.rows, everyone, limits, away, slow=frozenset(slow))


GRAM = {
    name: {
        "NumPy, Gram": batched(SIZES[name]),
        "Numba, Gram": compiled(SIZES[name], certified=False),
        "Numba, Gram, certificate's sums": compiled(SIZES[name], certified=True),
        "Numba, direct": direct(SIZES[name]),
        "NumPy loop": plain(SIZES[name]),
        "torch loop": in_torch(SIZES[name]),
    }
    for name in ("W1", "W2")
}
BY_GRAM = (
    Limit(1.3, ("Numba, Gram, certificate's sums",)),
    Limit(1.6, ("NumPy, Gram",)),
)
WORKLOADS = [
    averaging("W1", BY_GRAM, GRAM["W1"], ("torch loop",)),
    averaging("W2", BY_GRAM, GRAM["W2"], ("torch loop",)),
    averaging(
        "W3",
        (Limit(1.1, ("Numba, direct",)),),
        {"Numba, direct": direct(SIZES["W3"]), "NumPy loop": plain(SIZES["W3"]), "torch loop": in_torch(SIZES["W3"])},
        ("torch loop",),
    ),
    Workload(
        "W4",
        f"sparse, 80 in a row by Zipf's law: {SPARSE}",
        zipf_rows,
        {
            "localgd": ours(SPARSE, local_gd(local_steps=SPARSE.local_steps, lr=LR)),
            "C, CSR": sparse_loop(c_steps, csr_parts),
            "Numba, CSR": sparse_loop(numba_csr_steps, csr_parts),
            "SciPy loop": sparse_loop(scipy_steps, lambda x: (x, x.T)),
        },
        (Limit(1.1, ("C, CSR",)),),
        away,
    ),
    Workload(
        "W5",
        f"local-sgd, batches of {BATCH}: {SIZES['W5']}",
        SIZES["W5"].rows,
        {
            "localgd": ours(SIZES["W5"], local_sgd(local_steps=SIZES["W5"].local_steps, batch_size=BATCH, lr=LR)),
            "Numba, certificate's sums": sgd(SIZES["W5"], certified_sgd),
            "Numba": sgd(SIZES["W5"], numba_sgd),
            "NumPy loop": sgd(SIZES["W5"], numpy_sgd),
        },
        (Limit(1.3, ("Numba, certificate's sums",)), Limit(1.3, ("Numba",))),
        away,
    ),
    averaging("W6", (Limit(1.5, ("NumPy, Gram",)),), {"NumPy, Gram": batched(SIZES["W6"])}),
]
