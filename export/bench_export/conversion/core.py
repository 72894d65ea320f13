"""A trained network -> an ONNX graph from the normalised images to the model's own outputs."""

from __future__ import annotations

import copy
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bench.errors import BenchError, GateError
from bench_export.conversion.failure import quiet, reason_of, where_it_fails
from bench_export.conversion.proof import differing_batch, example

if TYPE_CHECKING:
    import torch
    from onnx import ModelProto

    from bench.kinds import DataSpec, Task

__all__ = ["OPSET", "OUTPUT", "Core", "UnequalGraph", "convert_core", "core_inputs"]

#: The exporters' own default; what later ones add, no model here needs.
OPSET = 18

#: The name of the model's own outputs, float32 N,K.
OUTPUT = "outputs"


@dataclass(frozen=True, slots=True)
class Core:
    """A converted network and by which of torch's exporters, "dynamo" or "torchscript", it was converted.

    `fallback_reason` says why the dynamo exporter was not used, None where it was.
    """

    proto: ModelProto
    exporter: str
    opset: int
    fallback_reason: str | None = None


class UnequalGraph(GateError):
    """What an exporter made of a model runs, but answers otherwise; `core` is that, to look at."""

    def __init__(self, message: str, *, hint: str, core: Core) -> None:
        super().__init__(message, hint=hint)
        self.core = core


def core_inputs(task: Task) -> tuple[str, ...]:
    """The names of a core's inputs, float32 N,C,h,w."""
    return ("normalised",) if task == "classification" else ("normalised_first", "normalised_second")


def convert_core(model: torch.nn.Module, spec: DataSpec) -> Core:
    """Convert a model to ONNX with a dynamic batch; inputs as `core_inputs` says, one output `outputs`.

    A copy is converted, in eval mode and float32 on the CPU; the model stays as it is. By torch's dynamo exporter, or by
    the older one where that fails. What comes out has been compared with torch at batches of 1, 2 and 5 images. Raises
    BenchError, naming operator and module, where neither exporter converts the model, and UnequalGraph where what they
    make of it answers otherwise.
    """
    network = _copied(model)
    reasons: list[str] = []
    unequal: Core | None = None
    for exporter, convert in (("dynamo", _by_dynamo), ("torchscript", _by_torchscript)):
        try:
            with quiet():
                proto = convert(network, spec)
            opset = next(known.version for known in proto.opset_import if not known.domain)
            core = Core(proto, exporter, int(opset), reasons[0] if reasons else None)
            unequal = unequal or core
            reason = differing_batch(proto, network, spec)
            if reason is None:
                return core
        except Exception as cause:  # noqa: BLE001  # exporters raise whatever they stumble over
            reason = reason_of(cause)
        reasons.append(reason)
    message = f"the model {type(model).__name__} cannot be exported to ONNX: {where_it_fails(network, spec, reasons)}"
    hint = "replace that operation in the model by one that ONNX has, or export another run"
    if unequal is not None:
        raise UnequalGraph(message, hint=hint, core=unequal)
    raise BenchError(message, hint=hint)


def _copied(model: torch.nn.Module) -> torch.nn.Module:
    import torch

    network = copy.deepcopy(model).to("cpu", torch.float32).to(memory_format=torch.contiguous_format)
    network.requires_grad_(requires_grad=False)
    return network.eval()


def _by_dynamo(network: torch.nn.Module, spec: DataSpec) -> ModelProto:
    import torch

    images = example(spec)
    batch = torch.export.Dim("N")
    program = torch.onnx.export(
        network,
        images,
        dynamo=True,
        external_data=False,
        verbose=False,
        opset_version=OPSET,
        input_names=core_inputs(spec.task),
        output_names=[OUTPUT],
        dynamic_shapes=tuple({0: batch} for _ in images),
    )
    assert program is not None  # noqa: S101  # it is where no file is written
    proto: ModelProto = program.model_proto
    _forget_places(proto)
    return proto


def _by_torchscript(network: torch.nn.Module, spec: DataSpec) -> ModelProto:
    import onnx
    import onnxscript.optimizer
    import torch

    names = list(core_inputs(spec.task))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "core.onnx")
        torch.onnx.export(
            network,
            example(spec),
            path,
            dynamo=False,
            opset_version=OPSET,
            input_names=names,
            output_names=[OUTPUT],
            dynamic_axes={name: {0: "N"} for name in (*names, OUTPUT)},
        )
        plain = onnx.load(path)
    # The dynamo exporter does this by itself: constants folded, BatchNorm merged into convolutions.
    simpler: ModelProto = onnxscript.optimizer.optimize(plain)
    return simpler


def _forget_places(proto: ModelProto) -> None:
    """Drop the stack traces, which hold paths of this machine; what says which module a node came from stays."""
    for node in proto.graph.node:
        kept = [entry for entry in node.metadata_props if not entry.key.endswith("stack_trace")]
        del node.metadata_props[:]
        node.metadata_props.extend(kept)
