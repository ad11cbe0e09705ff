"""Flags that several commands share, and the exit codes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import typer

FAILED, BAD_INPUT, SHORT, SIGNALLED = 1, 2, 3, 128
"""No usable result; bad input; short of the certificate asked for; ended by a signal (plus its number)."""

Data = Annotated[str, typer.Argument(help="Folder with one file per node, one table, or a bundled data set's name.")]
Label = Annotated[str | None, typer.Option(help="Column of the classes.", show_default="y for NPZ, svmlight")]
Node = Annotated[
    str | None,
    typer.Option("--node", "--node-column", help="Column that says which node a row of a single table belongs to."),
]
NodeMap = Annotated[
    str | None, typer.Option(help="What nodes that --node names are called, to join some: berlin=Berlin,B=Berlin.")
]
Drop = Annotated[list[str] | None, typer.Option(help="Column to leave out; may be repeated.")]
_DECIMAL = "What stands before the fraction of numbers in CSV files: a point, or with ',' a comma"
_ENCODING = "Encoding of CSV files, such as utf-8, cp1252, latin-1 or utf-16"
Decimal = Annotated[str | None, typer.Option(help=f"{_DECIMAL}.", show_default=".")]
Encoding = Annotated[str | None, typer.Option(help=f"{_ENCODING}.", show_default="utf-8")]
Decimals = Annotated[
    list[str] | None,
    typer.Option("--decimal", help=f"{_DECIMAL}; of one node of a folder: north=,; may be repeated.", show_default="."),
]
Encodings = Annotated[
    list[str] | None,
    typer.Option("--encoding", help=f"{_ENCODING}; of one node: north=cp1252; may be repeated.", show_default="utf-8"),
]
FillMissing = Annotated[
    bool | None,
    typer.Option(help="Where nodes lack a column that others have, fill it; else that is an error."),
]
MissingValues = Annotated[
    list[str] | None,
    typer.Option(
        "--missing-values",
        help="What stands for a missing value, beside blanks: k.A.,--; in one column: smoker:9; may be repeated.",
    ),
]
Weight = Annotated[str | None, typer.Option(help="Column of what each row counts, at least 0.", show_default="1")]
Text = Annotated[
    list[str] | None, typer.Option("--text", help="Column of free text, prepared as TF-IDF; may be repeated.")
]
Categorical = Annotated[list[str] | None, typer.Option(help="Column of categories although it looks like numbers.")]
Dates = Annotated[
    list[str] | None,
    typer.Option(
        "--dates", help="Column of dates (YYYY-MM-DD, DD.MM.YYYY), taken as days since 1970; may be repeated."
    ),
]
Scale = Annotated[
    Literal["standard", "none"] | None,
    typer.Option(
        help="Scaling of numeric columns.",
        show_default="standard; none for sparse files, and to certify a model from elsewhere",
    ),
]
LabelMap = Annotated[
    list[str] | None,
    typer.Option(
        help="What labels mean, where nodes spell or call them unlike: no=0,yes=1; at one node: north:1=0,2=1; may be "
        "repeated."
    ),
]
CategoryMap = Annotated[
    list[str] | None, typer.Option(help="The same for categories: COLUMN:North=north,S=south; may be repeated.")
]
NClasses = Annotated[
    int | None,
    typer.Option(help="How many classes there are; needed beyond 30, and where nodes share none.", show_default="any"),
]
ClassWeight = Annotated[
    str | None,
    typer.Option(
        help="What a row counts by its class, beside its weight: balanced, or no=1,yes=5.", show_default="1 each"
    ),
]
MinGroup = Annotated[
    int, typer.Option(help="A node tells a category or a word only if so many of its rows have it; else zeros.")
]
Partition = Annotated[
    str | None,
    typer.Option(help="Split one node's rows: iid, by_label, dirichlet[:alpha], by_size[:power], by_feature:COLUMN."),
]
NNodes = Annotated[int | None, typer.Option(help="How many nodes --partition makes.")]


@dataclass(frozen=True)
class Source:
    """Where rows are, and how they are read and spread over nodes: what commands on rows have in common."""

    data: Data
    label: Label = None
    node: Node = None
    node_map: NodeMap = None
    drop: Drop = None
    fill_missing_columns: FillMissing = None
    decimal: Decimals = None
    encoding: Encodings = None
    missing_values: MissingValues = None
    weight: Weight = None
    text_column: Text = None
    categorical: Categorical = None
    dates: Dates = None
    scale: Scale = None
    label_map: LabelMap = None
    category_map: CategoryMap = None
    n_classes: NClasses = None
    partition: Partition = None
    n_nodes: NNodes = None


HOLDOUT = "Share of every node's rows to set aside"
OfUnseen = Annotated[
    Literal["error", "zeros"] | None,
    typer.Option("--unseen", help="What a category never seen in training means.", show_default="as in training"),
]
Seed = Annotated[int, typer.Option(help="Seed of all that is drawn: the partition, batches, sampled nodes.")]
AngleTol = Annotated[float | None, typer.Option(help="Degrees to the pooled model that must be proved.")]
Force = Annotated[bool, typer.Option(help="Replace what is there of --out.")]
Plot = Annotated[bool, typer.Option(help="With --out: also draw convergence.png, what is proved against rounds.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
Engine = Annotated[
    Literal["in-process", "torch"] | None,
    typer.Option(help="Where the nodes live.", show_default="torch inside torchrun, else in-process"),
]
OnFailure = Annotated[
    Literal["raise", "skip"], typer.Option(help="A node that fails ends the run, or is left out of the round.")
]
Timeout = Annotated[
    float | None, typer.Option(help="torch: seconds to wait for the other processes in a round.", show_default="300")
]
