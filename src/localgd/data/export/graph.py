"""A model as a graph of ONNX, in float64: raw columns in, labels, scores and probabilities out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from localgd.data.encodings import Category, Number, Words
from localgd.data.export.levels import levels, positional
from localgd.errors import extra
from localgd.rounding import FloatArray

if TYPE_CHECKING:
    from localgd.data.model import Model

OPSET, ML_OPSET, IR_VERSION = 17, 3, 8
"""Old enough for any runtime of the last years; the newest bring nothing that is needed here."""

ROWS = "X"
"""What the input is called where rows are an array."""

OUTPUTS = ("label", "score", "probabilities", "prediction")


class Graph:
    """A graph as it grows: nodes, constants and inputs."""

    def __init__(self, onnx: Any) -> None:
        self.onnx = onnx
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.inputs: list[Any] = []

    def add(self, kind: str, *inputs: str, name: str = "", domain: str = "", **attributes: Any) -> str:
        """Add a node, and return the name of what it makes."""
        made = name or f"({kind} {len(self.nodes)})"
        node = self.onnx.helper.make_node(kind, inputs, [made], name=made, domain=domain, **attributes)
        self.nodes.append(node)
        return made

    def constant(self, values: Any) -> str:
        """Add an array of numbers or texts, and return its name."""
        array, name = np.asarray(values), f"(constant {len(self.constants)})"
        if array.dtype.kind in "UO":
            texts = [str(value).encode() for value in array.ravel()]
            kind = self.onnx.TensorProto.STRING
            self.constants.append(self.onnx.helper.make_tensor(name, kind, array.shape, texts))
        else:
            self.constants.append(self.onnx.numpy_helper.from_array(array, name))
        return name

    def input(self, name: str, *, width: int, text: bool = False) -> str:
        """Add an input of n rows and so many columns."""
        if name in OUTPUTS:
            raise ValueError(f"column {name!r} has the name of what comes out; rename it, or export to scikit-learn")
        kind = self.onnx.TensorProto.STRING if text else self.onnx.TensorProto.DOUBLE
        self.inputs.append(self.onnx.helper.make_tensor_value_info(name, kind, ["n", width]))
        return name

    def output(self, name: str, kind: int, shape: Sequence[Any]) -> Any:
        """Return what an output is."""
        return self.onnx.helper.make_tensor_value_info(name, kind, shape)


def write_onnx(model: Model, path: Path) -> None:
    """Write the graph: see `Model.to_onnx`."""
    with extra("onnx", "onnx"):
        import onnx  # noqa: PLC0415
        import onnx.numpy_helper  # noqa: PLC0415

    from localgd import __version__  # noqa: PLC0415  it asks the system

    graph = Graph(onnx)
    scores = _scores(graph, model)
    outputs = _outputs(graph, model, scores)
    whole = onnx.helper.make_graph(graph.nodes, "localgd", graph.inputs, outputs, graph.constants)
    opsets = [onnx.helper.make_opsetid("", OPSET), onnx.helper.make_opsetid("ai.onnx.ml", ML_OPSET)]
    made = onnx.helper.make_model(
        whole, opset_imports=opsets, ir_version=IR_VERSION, producer_name="localgd", producer_version=__version__
    )
    onnx.checker.check_model(made, full_check=True)
    path.write_bytes(made.SerializeToString())


def _scores(graph: Graph, model: Model) -> str:
    """Return the name of the scores, (n, 1) or (n, C)."""
    recipe, coef = model.preparation, np.atleast_2d(model.coef)
    by_place, parts, start = positional(recipe), list[str](), 0
    if by_place:
        parts.append(_of_numbers(graph, graph.input(ROWS, width=len(recipe.columns)), recipe.columns, coef))
    for column in () if by_place else recipe.columns:
        own = coef[:, start : (start := start + len(column.feature_names))]
        match column:
            case Number():
                parts.append(_of_numbers(graph, graph.input(column.name, width=1), [column], own))
            case Category():
                parts.append(_of_category(graph, column, own, recipe.unseen))
            case Words():
                raise ValueError(f"column {column.name!r} is a text, and ONNX counts no words; export to scikit-learn")
    total = graph.constant(np.atleast_1d(np.asarray(model.intercept, dtype=np.float64))[None])
    for part in parts:
        total = graph.add("Add", total, part)
    return total


def _of_numbers(graph: Graph, given: str, numbers: Sequence[Any], coef: FloatArray) -> str:
    fills = np.array([[np.nan if number.fill is None else number.fill for number in numbers]])
    filled = graph.add("Where", graph.add("IsNaN", given), graph.constant(fills), given)
    centered = graph.add("Sub", filled, graph.constant([[float(number.center) for number in numbers]]))
    scaled = graph.add("Div", centered, graph.constant([[float(number.scale) for number in numbers]]))
    return graph.add("MatMul", scaled, graph.constant(np.ascontiguousarray(coef.T)))


def _of_category(graph: Graph, column: Category, coef: FloatArray, unseen: str) -> str:
    """Look a text up; one that is not known counts nothing, or has no place, so that the runtime refuses it."""
    nothing = len(column.levels)
    known = {text: nothing if place is None else place for text, place in levels(column).items()}
    text = graph.add("Reshape", graph.input(column.name, width=1, text=True), graph.constant(np.array([-1])))
    place = graph.add(
        "LabelEncoder",
        text,
        domain="ai.onnx.ml",
        keys_strings=list(known),
        values_int64s=list(known.values()),
        default_int64=nothing if unseen == "zeros" else nothing + 1,
    )
    values = np.vstack([coef.T, np.zeros((1, len(coef)))])
    return graph.add("Gather", graph.constant(values), place, name=f"{column.name}, unseen in training?", axis=0)


def _outputs(graph: Graph, model: Model, scores: str) -> list[Any]:
    """Return the outputs: of numbers a prediction, else label, score and, if there are any, probabilities."""
    kinds, classes, likely = graph.onnx.TensorProto, model.classes or (), model.probabilities
    flat = graph.constant(np.array([-1]))
    if not classes:
        return [graph.output(graph.add("Reshape", scores, flat, name="prediction"), kinds.DOUBLE, ["n"])]
    odds = scores
    if likely is not None and likely.slope:
        odds = graph.add(
            "Add", graph.add("Mul", scores, graph.constant([likely.slope])), graph.constant([likely.offset])
        )
    if len(classes) == 2:
        second = graph.add("Greater", graph.add("Reshape", odds, flat), graph.constant(0.0))
        place = graph.add("Cast", second, to=kinds.INT64)
        score = graph.add("Reshape", odds, flat, name="score")
    else:
        place = graph.add("ArgMax", odds, axis=1, keepdims=0)
        score = graph.add("Identity", odds, name="score")
    unknown = graph.add("Cast", graph.add("IsNaN", odds), to=kinds.INT64)  # a row with no score has no label's place
    beyond = graph.add("Mul", graph.add("ReduceMax", unknown, axes=[1], keepdims=0), graph.constant(len(classes)))
    place = graph.add("Add", place, beyond)
    labels, kind = _labels(classes, kinds)
    label = graph.add("Gather", graph.constant(labels), place, name="label")
    out = [graph.output(label, kind, ["n"])]
    out.append(graph.output(score, kinds.DOUBLE, ["n"] if len(classes) == 2 else ["n", len(classes)]))
    if likely is not None:
        proba = _probabilities(graph, odds, len(classes), sigmoids=bool(likely.slope))
        out.append(graph.output(proba, kinds.DOUBLE, ["n", len(classes)]))
    return out


def _probabilities(graph: Graph, odds: str, n_classes: int, *, sigmoids: bool) -> str:
    name = "probabilities"
    if n_classes == 2:
        both = [graph.add("Sigmoid", graph.add("Neg", odds)), graph.add("Sigmoid", odds)]
        return graph.add("Concat", *both, name=name, axis=1)
    if not sigmoids:
        return graph.add("Softmax", odds, name=name, axis=1)
    each = graph.add("Sigmoid", odds)
    total = graph.add("ReduceSum", each, graph.constant(np.array([1])), keepdims=1)
    return graph.add("Div", each, total, name=name)


def _labels(classes: Sequence[Any], kinds: Any) -> tuple[Any, int]:
    """Return the labels as an array of one type, and that type: texts, truth values, whole or other numbers."""
    types = {type(value) for value in classes}
    if types == {bool}:
        return np.array(classes), kinds.BOOL
    if types == {int} and all(-(2**63) <= value < 2**63 for value in classes):
        return np.array(classes, dtype=np.int64), kinds.INT64
    if types <= {int, float}:
        return np.array(classes, dtype=np.float64), kinds.DOUBLE
    return np.array([str(value) for value in classes]), kinds.STRING
