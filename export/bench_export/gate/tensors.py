"""Every inner value of an ONNX file, and every value that a torch model computes: what departures are found with."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from onnx import ModelProto
    from torch.nn import Module

__all__ = ["Graph", "Node", "open_graph", "torch_values"]

_SCOPES = "pkg.torch.onnx.name_scopes"
_FAILED = re.compile(r"while running (\w+) node\. Name:'([^']*)'")


@dataclass(frozen=True, slots=True)
class Node:
    """A node of a graph: its name (or that of its output), operator, the torch module that it stems from, tensors."""

    name: str
    op: str
    module: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Graph:
    """A file's nodes in their order, and a session, not optimised, that gives the value of each."""

    nodes: tuple[Node, ...]
    inputs: tuple[str, ...]
    inference: Any

    def run(self, *arrays: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Inputs in the file's order -> every tensor by its name. Raises onnxruntime's own errors."""
        values = self.inference.run(None, dict(zip(self.inputs, arrays, strict=True)))
        names = (output.name for output in self.inference.get_outputs())
        return {name: value for name, value in zip(names, values, strict=True) if isinstance(value, np.ndarray)}

    def producer(self, tensor: str) -> Node | None:
        """The node that computes a tensor; None for inputs and constants."""
        return next((node for node in self.nodes if tensor in node.outputs), None)

    def failing(self, cause: Exception) -> Node | None:
        """The node that an error of onnxruntime names."""
        found = _FAILED.search(str(cause))
        return None if found is None else next((node for node in self.nodes if node.name == found.group(2)), None)

    def ancestors(self, tensor: str) -> Iterator[Node]:
        """The nodes that a tensor depends on, the nearest first."""
        wanted = {tensor}
        for node in reversed(self.nodes):
            if wanted & set(node.outputs):
                wanted.update(node.inputs)
                yield node

    def after(self, start: Iterable[str]) -> set[str]:
        """The tensors that depend on any of these, which are not among them."""
        begin = set(start)
        known = set(begin)
        for node in self.nodes:
            if known & set(node.inputs):
                known.update(node.outputs)
        return known - begin


def open_graph(source: Path | ModelProto) -> Graph:
    """Open a file or a model so that all of its tensors can be looked at. Subgraphs (If, Loop) count as one node."""
    import onnx
    import onnxruntime

    proto = onnx.ModelProto()
    proto.CopyFrom(onnx.load(str(source)) if isinstance(source, Path) else source)
    given = {output.name for output in proto.graph.output}
    nodes = tuple(_node(node) for node in proto.graph.node)
    inner = [name for node in nodes for name in node.outputs if name and name not in given]
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in inner)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return Graph(nodes, tuple(entry.name for entry in session.get_inputs()), session)


def torch_values(model: Module, inputs: Sequence[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
    """The result of every operation that a model in evaluation mode computes, in order."""
    import torch
    from torch.utils import _python_dispatch

    mode: Any = _python_dispatch.TorchDispatchMode
    values: list[NDArray[np.float32]] = []

    def record(value: Any) -> None:
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            # A copy: the next operation may write in place.
            values.append(value.detach().clone().float().contiguous().numpy())

    class Recorder(mode):  # type: ignore[misc]  # torch's class is not typed
        def __torch_dispatch__(self, func: Any, _: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = func(*args, **(kwargs or {}))
            for value in result if isinstance(result, tuple | list) else (result,):
                record(value)
            return result

    with _in_evaluation(model), torch.no_grad():
        given = [torch.from_numpy(array) for array in inputs]
        with Recorder():
            model(*given)
    return values


@contextmanager
def _in_evaluation(model: Module) -> Iterator[None]:
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def _node(node: Any) -> Node:
    outputs = tuple(node.output)
    scopes = next((entry.value for entry in node.metadata_props if entry.key == _SCOPES), "")
    # "['', 'features', 'features.0', 'conv2d']": the modules from the outermost to the innermost, then the operation.
    names = re.findall(r"'([^']*)'", scopes)[:-1]
    return Node(
        node.name or next(iter(outputs), ""), node.op_type, names[-1] if names else "", tuple(node.input), outputs
    )
