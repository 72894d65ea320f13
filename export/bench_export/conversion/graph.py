"""A few lines that make writing an ONNX graph by hand readable."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike
    from onnx import GraphProto, NodeProto, TensorProto

__all__ = ["DOUBLE", "FLOAT", "INT64", "PREFIX", "UINT8", "Nodes", "rename"]

#: Types by their numbers in TensorProto.
FLOAT, UINT8, INT64, DOUBLE = 1, 2, 7, 11

#: What the names of all nodes and inner tensors begin with that do not come from the model.
PREFIX = "visionbench/"


@dataclass(slots=True)
class Nodes:
    """Nodes in order and the constants that they use; `scope` keeps names of two parts of a graph apart."""

    scope: str
    nodes: list[NodeProto] = field(default_factory=list)
    constants: list[TensorProto] = field(default_factory=list)

    def add(self, operator: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        """Append a node with one output and return the output's name; `output` sets that name. An input "" is absent."""
        from onnx import helper

        name = f"{PREFIX}{self.scope}/{operator}_{len(self.nodes)}"
        result = output or f"{name}_output"
        self.nodes.append(helper.make_node(operator, list(inputs), [result], name=name, **attributes))
        return result

    def several(self, operator: str, number: int, *inputs: str, **attributes: Any) -> list[str]:
        """Append a node with that many outputs and return their names."""
        first = self.add(operator, *inputs, **attributes)
        self.nodes[-1].output.extend(f"{first}_{position}" for position in range(1, number))
        return list(self.nodes[-1].output)

    def constant(self, value: ArrayLike, kind: type[np.generic] = np.float64) -> str:
        """The name of a constant; equal ones are stored once."""
        from onnx import numpy_helper

        array = np.asarray(value, dtype=kind)
        tensor = numpy_helper.from_array(array)
        for known in self.constants:
            if (known.data_type, known.dims, known.raw_data) == (tensor.data_type, tensor.dims, tensor.raw_data):
                return str(known.name)
        tensor.name = f"{PREFIX}{self.scope}/constant_{len(self.constants)}"
        self.constants.append(tensor)
        return str(tensor.name)

    def integers(self, *values: int) -> str:
        """The name of a constant int64 vector."""
        return self.constant(values, np.int64)

    def branch(self, output: str) -> GraphProto:
        """The nodes as a branch of an If, with this output."""
        from onnx import helper

        return helper.make_graph(
            self.nodes, f"{PREFIX}{self.scope}", [], [helper.make_empty_tensor_value_info(output)], self.constants
        )


def rename(graph: GraphProto, reserved: set[str]) -> None:
    """Give the model's own tensors that have one of these names, or one with our prefix, another one, in place."""
    made = {name for node in graph.node for name in node.output} | {tensor.name for tensor in graph.initializer}
    kept = {value.name for value in (*graph.input, *graph.output)}
    clashing = {name for name in made - kept if name in reserved or name.startswith(PREFIX)}
    if clashing:
        _replace(graph, {name: f"model/{name}" for name in clashing})


def _replace(graph: GraphProto, names: dict[str, str]) -> None:
    for named in (*graph.initializer, *graph.value_info):
        named.name = names.get(named.name, named.name)
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
        for attribute in node.attribute:
            if attribute.HasField("g"):  # a branch or a loop, which sees the tensors around it
                _replace(attribute.g, names)
