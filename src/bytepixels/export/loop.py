"""One ONNX graph from noise to images: the network inside a Loop that follows a recipe (core/recipe.py)."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from ..core.levels import way_between
from ..core.prediction import coefficients
from ..core.recipe import Recipe

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto


Value = tuple[str, int, list[Any]]  # of a graph: its name, type and dimensions


@dataclass(frozen=True)
class Plan:
    """What a program does with a network to draw: the recipe, and what surrounds each evaluation, by evaluation."""

    recipe: Recipe
    scale: float  # of standard normal noise, which makes it the start
    prediction: str
    sigma_data: float
    guided: list[bool]  # whether guidance acts there
    bounds: tuple[float | Tensor, float | Tensor] | None  # that each estimate of x0 is clipped to

    @property
    def calls(self) -> int:
        """The number of evaluations."""
        return len(self.recipe.evaluations)

    @property
    def rows(self) -> np.ndarray:
        """[E + 1, 1 + E + Z]: the factors of each evaluation's input, and of the image."""
        rows = [*(evaluation.row for evaluation in self.recipe.evaluations), self.recipe.last]
        return np.array(rows, np.float32)

    @property
    def numbers(self) -> dict[str, np.ndarray]:
        """For each evaluation [E]: t, c_in, c_skip, c_out, guided (0 or 1), and way, that a flow map is told."""
        found: dict[str, list[float]] = {name: [] for name in ("t", "c_in", "c_skip", "c_out", "way")}
        for level, destination, _ in self.recipe.evaluations:
            parts = coefficients(self.prediction, level.alpha, level.sigma, self.sigma_data)
            way = 0.0 if destination is None else way_between(level, destination, self.sigma_data)
            for name, value in zip(found, (level.t, *parts, way), strict=True):
                found[name].append(float(value))
        return {name: np.array(values, np.float32) for name, values in (found | {"guided": self.guided}).items()}


@dataclass
class Graph:
    """Nodes that are being put together, and constants, which those of a loop share with what is around it."""

    kept: "list[TensorProto]" = field(default_factory=list)
    nodes: "list[NodeProto]" = field(default_factory=list)

    def inner(self) -> "Graph":
        """The graph of a loop in this one."""
        return Graph(self.kept)

    def constant(self, name: str, values: Any) -> str:
        """Keep a constant and return its name."""
        from onnx import numpy_helper

        self.kept.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def add(self, kind: str, inputs: list[str], output: str, **settings: Any) -> str:
        """Add a node and return the name of its output."""
        from onnx import helper

        self.nodes.append(helper.make_node(kind, inputs, [output], **settings))
        return output

    def mixed(self, row: str, basis: str, output: str) -> str:
        """The sum over the basis [N, ...] with the factors of a row [N]."""
        shape = self.constant(f"{output}_shape", np.array([-1, 1, 1, 1, 1]))
        parts = self.add("Mul", [basis, self.add("Reshape", [row, shape], f"{output}_row")], f"{output}_parts")
        return self.add("ReduceSum", [parts, "axis"], output, keepdims=0)


def sampler_model(network: "ModelProto", finish: "ModelProto", plan: Plan, null_label: int | None) -> "ModelProto":
    """The graph: noise [B, c, h, w], what the network can be told, fresh [Z, B, c, h, w] where noise is drawn on the
    way, and guidance, a number, where it acts, -> images uint8 [B, C, H, W]."""
    from onnx import TensorProto, compose, helper

    network, finish = compose.add_prefix(network, "net_"), compose.add_prefix(finish, "end_")
    told = [value for value in network.graph.input if value.name not in ("net_x", "net_t", "net_destination")]
    shape = sizes_of(network.graph.input[0])[1:]
    outer = Graph([*network.graph.initializer, *finish.graph.initializer])
    outer.constant("axis", np.array([0]))
    start(outer, plan)
    if any(plan.guided):
        for value in told:
            without(outer, value.name.removeprefix("net_"), null_label)
    body = loop_body(outer, network, plan, [value.name.removeprefix("net_") for value in told])
    trip, always = (outer.constant(name, np.array(value)) for name, value in (("trip", plan.calls), ("always", True)))
    outer.add("Loop", [trip, always, "basis_0"], "basis_last", body=body)
    outer.mixed(outer.constant("last", plan.rows[-1]), "basis_last", "end_x0")
    outer.nodes += finish.graph.node
    outer.add("Identity", [finish.graph.output[0].name], "images")
    given: list[Value] = [("noise", TensorProto.FLOAT, ["batch", *shape])]
    for value in told:
        free = ["batch", "length"] if value.name in ("net_vectors", "net_mask") else ["batch"]
        rest = sizes_of(value)[len(free) :]
        given.append((value.name.removeprefix("net_"), value.type.tensor_type.elem_type, [*free, *rest]))
    if plan.recipe.noises:
        given.append(("fresh", TensorProto.FLOAT, [plan.recipe.noises, "batch", *shape]))
    if any(plan.guided):
        given.append(("guidance", TensorProto.FLOAT, []))
    size: list[Any] = ["batch", *sizes_of(finish.graph.output[0])[1:]]
    images = helper.make_tensor_value_info("images", TensorProto.UINT8, size)
    inputs = [helper.make_tensor_value_info(*one) for one in given]
    graph = helper.make_graph(outer.nodes, "sampler", inputs, [images], initializer=outer.kept)
    functions = [*network.functions, *finish.functions]
    opsets, version = network.opset_import, network.ir_version
    return helper.make_model(graph, opset_imports=opsets, functions=functions, ir_version=version)


def start(graph: Graph, plan: Plan) -> None:
    """basis_0 [1 + E + Z, B, c, h, w]: the start, zeros for the estimates to come, and fresh noise."""
    graph.add("Mul", ["noise", graph.constant("scale", np.float32(plan.scale))], "start")
    graph.add("Unsqueeze", ["start", "axis"], "first")
    graph.add("Mul", ["first", graph.constant("zero", np.float32(0))], "blank")
    graph.add("Tile", ["blank", graph.constant("calls", np.array([plan.calls, 1, 1, 1, 1]))], "blanks")
    fresh = ["fresh"] if plan.recipe.noises else []
    graph.add("Concat", ["first", "blanks", *fresh], "basis_0", axis=0)


def without(graph: Graph, name: str, null_label: int | None) -> None:
    """NAME_both: what the network is told, and below it what it is told of no label and no text."""
    none = name  # vectors, of which an empty mask hides all
    if name == "label":
        graph.add("Shape", ["noise"], "one_batch", end=1)
        none = graph.add("Expand", [graph.constant("null_label", np.array([null_label])), "one_batch"], "no_label")
    elif name == "mask":
        none = graph.add("And", ["mask", graph.constant("false", np.array(False))], "no_mask")
    graph.add("Concat", [name, none], f"{name}_both", axis=0)


def loop_body(outer: Graph, network: "ModelProto", plan: Plan, told: list[str]) -> Any:
    """One evaluation: the basis [1 + E + Z, B, c, h, w] with one more estimate of x0 in its place."""
    from onnx import TensorProto, helper

    graph, twice = outer.inner(), any(plan.guided)
    shape = sizes_of(network.graph.input[0])[1:]
    for name, values in plan.numbers.items():
        graph.add("Gather", [graph.constant(f"all_{name}", values), "step"], name, axis=0)
    graph.add("Gather", [graph.constant("rows", plan.rows), "step"], "row", axis=0)
    graph.mixed("row", "basis", "one")
    x = graph.add("Concat", ["one", "one"], "two", axis=0) if twice else "one"
    graph.add("Mul", [x, "c_in"], "net_x")
    graph.add("Shape", [x], "rows_in", end=1)
    graph.add("Expand", ["t", "rows_in"], "net_t")
    if any(value.name == "net_destination" for value in network.graph.input):
        graph.add("Expand", ["way", "rows_in"], "net_destination")
    for name in told:
        graph.add("Identity", [f"{name}_both" if twice else name], f"net_{name}")
    graph.nodes += network.graph.node
    output = network.graph.output[0].name
    if sizes_of(network.graph.output[0])[1] != shape[0]:  # a learned variance follows
        ends = [graph.constant(name, np.array([at])) for name, at in (("from", 0), ("to", shape[0]), ("channel", 1))]
        output = graph.add("Slice", [output, *ends], "prediction")
    kept, changed = graph.add("Mul", [x, "c_skip"], "kept"), graph.add("Mul", [output, "c_out"], "changed")
    x0 = graph.add("Add", [kept, changed], "estimate")
    x0 = clipped(graph, plan, guided(graph, x0) if twice else x0)
    graph.add("Add", ["step", graph.constant("ahead", np.array(1))], "place")
    graph.add("Equal", [graph.constant("places", np.arange(plan.rows.shape[1])), "place"], "here")
    graph.add("Reshape", ["here", graph.constant("column", np.array([-1, 1, 1, 1, 1]))], "here_column")
    graph.add("Where", ["here_column", graph.add("Unsqueeze", [x0, "axis"], "found"), "basis"], "basis_next")
    graph.add("Identity", ["go_on"], "go_on_next")
    basis: tuple[int, list[Any]] = TensorProto.FLOAT, [plan.rows.shape[1], None, *shape]
    before: list[Value] = [
        ("step", TensorProto.INT64, []),
        ("go_on", TensorProto.BOOL, []),
        ("basis", *basis),
    ]
    after: list[Value] = [("go_on_next", TensorProto.BOOL, []), ("basis_next", *basis)]
    inputs, outputs = ([helper.make_tensor_value_info(*one) for one in side] for side in (before, after))
    return helper.make_graph(graph.nodes, "evaluation", inputs, outputs)


def guided(graph: Graph, estimate: str) -> str:
    """The estimate with a label, moved on from that without: guidance times their difference, where it acts."""
    graph.add("Split", [estimate], "towards", num_outputs=2, axis=0)
    graph.nodes[-1].output.append("away")
    more = graph.add("Sub", ["guidance", graph.constant("none", np.float32(1))], "more")
    difference = graph.add("Sub", ["towards", "away"], "difference")
    push = graph.add("Mul", [difference, graph.add("Mul", [more, "guided"], "acts")], "push")
    return graph.add("Add", ["towards", push], "estimate_guided")


def clipped(graph: Graph, plan: Plan, x0: str) -> str:
    """The estimate within the bounds of x0."""
    if plan.bounds is None:
        return x0
    low, high = (
        graph.constant(name, np.asarray(bound, np.float32))
        for name, bound in zip(("low", "high"), plan.bounds, strict=True)
    )
    return graph.add("Min", [graph.add("Max", [x0, low], "above"), high], "clipped")


def sizes_of(value: "ValueInfoProto") -> list[int]:
    """The dimensions of an input or output; 0 where one is free."""
    return [dim.dim_value for dim in value.type.tensor_type.shape.dim]
