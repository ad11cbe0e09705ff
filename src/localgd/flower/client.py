"""The node's app: rows from where the node's own operator says, answers to what is on the list."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from flwr.app import Context
from flwr.clientapp import ClientApp

from localgd.data.datasets import DATASETS, load_dataset
from localgd.data.gaps import said_values
from localgd.data.load import load
from localgd.data.partition import partition
from localgd.data.table import Table
from localgd.engine.flower import Limits, RefusedError, RoundHandler
from localgd.engine.flower.records import MAX_MB, QUERY
from localgd.flower.features import HeadRows
from localgd.methods import served
from localgd.methods.served import TASKS

ENCODERS = (*served.ENCODERS, HeadRows)
"""What a node puts its rows through for a server elsewhere."""


def _names(said: str) -> list[str]:
    return [name.strip() for name in said.split(",") if name.strip()]


READ: dict[str, Callable[[str], Any]] = {
    **dict.fromkeys(("label", "weight", "decimal", "encoding"), str),
    **dict.fromkeys(("drop", "categorical", "dates"), _names),
    "missing-values": lambda said: said_values(said.split(";")),
}
"""What a node-config may say of its file, for the parameters of `localgd.load` of these names, and how it is read."""

ELSEWHERE = {
    **dict.fromkeys(
        ("node", "nodes", "node-map", "partition", "n-nodes"), "its file is of this node only: leave it out"
    ),
    **dict.fromkeys(("fill-missing-columns", "may-lack"), "one file lacks no column of its own: leave it out"),
    **dict.fromkeys(
        ("text", "scale", "missing", "empty", "label-map", "category-map", "n-classes", "class-weight"),
        "it is one of all nodes: say it in the run-config",
    ),
}
"""What else may be said of rows, and why a node-config may not."""

PUBLIC = Limits(min_rows=1, min_batch=1, min_group=1)
"""Limits on work only: for rows that need no guard, as those of a bundled set or of a test."""


def answer(
    app: ClientApp,
    load: Callable[[Context], Any] | None = None,
    *,
    tasks: Collection[type] = TASKS,
    encoders: Collection[type] = ENCODERS,
    max_mb: float = MAX_MB,
    limits: Limits | None = None,
) -> ClientApp:
    """Let a ClientApp answer localgd, beside whatever else it does.

    Parameters
    ----------
    app : ClientApp
        Gets the handler ``query.localgd``.
    load : callable, optional
        Returns the node's own `Table`, `Shard`, `Samples` or `Features` from its `Context`; `rows` by default.
    tasks, encoders : collection of type
        What the node agrees to run; any other is refused. Limits do not hold the code of a task of your own, which has
        the rows at hand: know what it sends.
    max_mb : float > 0
        Largest message that it takes.
    limits : Limits, optional
        What it refuses where its node-config does not say otherwise (``min-rows``, ``min-batch``, ``min-group``,
        ``max-local-steps``, ``max-duals``, ``max-mb``): by default `Limits()`, and on a bundled set, which anyone may
        read, `PUBLIC`.

    Returns
    -------
    ClientApp
        The app.

    Raises
    ------
    TypeError
        If it is no ClientApp, or one of Flower's older API, with a client_fn.

    Examples
    --------
    >>> from localgd import Shard
    >>> app = answer(ClientApp(), lambda context: Shard(f"site {context.node_id}", [[1.0, 2.0]]))
    """
    if not isinstance(app, ClientApp):
        raise TypeError(f"app must be a ClientApp of flwr.clientapp, got {app!r}")
    if app._call is not None:  # noqa: SLF001  Flower has no other way to ask
        raise TypeError(
            "app has a client_fn, as in Flower's older API, and can answer nothing else: make it ClientApp(), and put "
            "what fit and evaluate did into functions under @app.train() and @app.evaluate()"
        )

    def limits_of(context: Context) -> Limits:
        public = load is None and "data-path" not in context.node_config
        return (limits or (PUBLIC if public else Limits())).within(context.node_config)

    app.query(QUERY.partition(".")[2])(RoundHandler(load or rows, tasks, encoders, max_mb, limits_of))
    return app


def rows(context: Context) -> Table:
    """Return the rows that a node's own configuration names: nothing that the server says can lead to a file.

    ``data-path`` is a file of this node only, with what `READ` has (``label``, ``drop``, ``dates``, …, names between
    commas; ``missing-values`` like ``k.A.,--;smoker:9``) as in `localgd.load`. Or ``data`` names a bundled set, of
    which ``partition-id`` picks the node, as simulations number them; only there the app's own configuration may name
    it. If it names no rows of one node, or says of them what it cannot, it is a `RefusedError`.
    """
    config = context.node_config
    _check_said(config)
    path, bundled = config.get("data-path"), config.get("data", context.run_config.get("data", ""))
    if path is not None:
        if not Path(str(path)).is_file():
            raise RefusedError("its data-path is no file; correct its node-config")
        own = {key.replace("-", "_"): read(str(config[key])) for key, read in READ.items() if key in config}
        return load(str(path), **own)[0]
    place = config.get("partition-id")
    if bundled and bundled not in DATASETS:
        raise RefusedError(f"data={bundled!r:.60} is no bundled set; known are {', '.join(DATASETS)}")
    if not bundled or type(place) is not int:
        raise RefusedError("its node-config names no rows: give it data-path, or data (a bundled set) and partition-id")
    tables = load_dataset(str(bundled))
    if len(tables) == 1:
        tables = partition(tables[0], "iid", int(str(config.get("num-partitions", 1))))
    if not 0 <= place < len(tables):
        raise RefusedError(f"{bundled} has {len(tables)} nodes, so none of partition-id {place}; start as many")
    return tables[place]


def _check_said(config: Mapping[str, Any]) -> None:
    """Refuse what a node-config says of rows that would not count; other keys may be for other apps."""
    for key in config:
        plain = key.replace("_", "-")
        if key != plain and plain in {"data-path", *READ, *ELSEWHERE}:
            raise RefusedError(f"its node-config says {key}: it is called {plain} there")
        if key in ELSEWHERE:
            raise RefusedError(f"its node-config says {key}, but {ELSEWHERE[key]}")
        if key in READ and "data-path" not in config:
            raise RefusedError(f"its node-config says {key}, which is about the file of data-path: name that, too")


client = answer(ClientApp())
"""A ClientApp that answers localgd on the rows of its node's configuration, and nothing else."""
