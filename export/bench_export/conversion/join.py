"""Preprocessing, network and postprocessing as one ONNX graph."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench import __version__
from bench.errors import BenchError
from bench_export.conversion.core import OUTPUT, core_inputs
from bench_export.conversion.graph import FLOAT, PREFIX, UINT8, rename
from bench_export.conversion.postprocessing import postprocess
from bench_export.conversion.preprocessing import preprocess
from bench_export.conversion.write import write

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, ValueInfoProto

    from bench.kinds import Task
    from bench_export.card import Preprocessing

__all__ = ["image_inputs", "join", "write"]

_BOOL = 9

#: Losses of models with one output for two classes.
_SINGLE_OUTPUT = ("bce", "contrastive")


def image_inputs(task: Task) -> tuple[str, ...]:
    """The names of a whole file's inputs, uint8 N,H,W,C."""
    return ("images",) if task == "classification" else ("first", "second")


def join(
    core: ModelProto,
    *,
    preprocessing: Preprocessing,
    task: Task,
    num_classes: int,
    loss: str,
    threshold: float | None,
) -> ModelProto:
    """The core with pre- and postprocessing around it; the core itself stays as it is.

    Inputs uint8 N,H,W,C of any size (`image_inputs`); outputs `probabilities` N,num_classes, of pairs `score` and
    `decision` N. The core's inputs and its output keep their names; between them and the images stands `pixels`, uint8
    N,h,w,C. Raises BenchError where the core does not fit to the rest.
    """
    import onnx

    inputs, images = core_inputs(task), image_inputs(task)
    num_outputs = _check(core.graph, preprocessing, inputs, num_classes, loss)
    pixels = [name.replace("normalised", "pixels") for name in inputs]
    before = [
        preprocess(source, preprocessing, pixels=fitted, normalised=name)
        for source, fitted, name in zip(images, pixels, inputs, strict=True)
    ]
    after = postprocess(OUTPUT, task=task, loss=loss, num_outputs=num_outputs, threshold=threshold)
    answers = _answers(task, num_classes)
    joined = onnx.ModelProto()
    joined.CopyFrom(core)
    graph = joined.graph
    rename(graph, {*images, *pixels, *(answer.name for answer in answers)})
    network = list(graph.node)
    between = [*graph.input, *graph.output]
    del graph.node[:], graph.input[:], graph.output[:]
    graph.node.extend([*(node for part in before for node in part.nodes), *network, *after.nodes])
    graph.initializer.extend(tensor for part in (*before, after) for tensor in part.constants)
    graph.input.extend(_images(name, preprocessing.channels, several=len(images) > 1) for name in images)
    graph.output.extend(answers)
    graph.value_info.extend(between)
    graph.name = joined.producer_name = PREFIX.rstrip("/")
    joined.producer_version = __version__
    return joined


def _check(core: GraphProto, preprocessing: Preprocessing, names: tuple[str, ...], num_classes: int, loss: str) -> int:
    """The number of the core's outputs, where it takes and gives what it should."""
    given = tuple(value.name for value in core.input)
    if given != names or [value.name for value in core.output] != [OUTPUT]:
        raise BenchError(
            f"the graph takes {', '.join(given)} instead of {', '.join(names)}", hint="export the run again"
        )
    wanted = (preprocessing.channels, *preprocessing.size)
    for value in core.input:
        if (shape := _shape(value)[1:]) != wanted:
            raise BenchError(
                f"the graph's {value.name} is {' x '.join(map(str, shape))}, the preprocessing gives "
                f"{' x '.join(map(str, wanted))}",
                hint="preprocessing and model are of two different runs",
            )
    (num_outputs,) = _shape(core.output[0])[1:] or (0,)
    single = num_classes == 2 and loss in _SINGLE_OUTPUT  # noqa: PLR2004  # two classes
    if num_outputs != num_classes and not (single and num_outputs == 1):
        raise BenchError(
            f"the model has {num_outputs} outputs for {num_classes} classes and the loss {loss!r}",
            hint="its head must have one output a class",
        )
    return num_outputs


def _shape(value: ValueInfoProto) -> tuple[int, ...]:
    """The sides of a tensor; 0 where one is dynamic."""
    return tuple(side.dim_value for side in value.type.tensor_type.shape.dim)


def _images(name: str, channels: int, *, several: bool) -> ValueInfoProto:
    """An input of uint8 images, of which each may have a size of its own."""
    from onnx import helper

    sides = (f"{name}_H", f"{name}_W") if several else ("H", "W")
    return helper.make_tensor_value_info(name, UINT8, ["N", *sides, channels])


def _answers(task: Task, num_classes: int) -> list[ValueInfoProto]:
    from onnx import helper

    if task == "classification":
        return [helper.make_tensor_value_info("probabilities", FLOAT, ["N", num_classes])]
    return [
        helper.make_tensor_value_info("score", FLOAT, ["N"]),
        helper.make_tensor_value_info("decision", _BOOL, ["N"]),
    ]
