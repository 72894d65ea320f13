"""Proof that a converted network does what the torch one does, whatever the batch."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch
    from onnx import ModelProto

    from bench.kinds import DataSpec

__all__ = ["BYTES_IN_ONE_FILE", "differing_batch", "example", "num_bytes"]

#: What protobuf can hold, with room for the metadata.
BYTES_IN_ONE_FILE = 2**31 - 2**24

_BATCHES = (1, 2, 5)
_TOLERANCE = 1e-3  #: of the largest output; exporters that get a layer wrong are far off


def example(spec: DataSpec, batch: int = 2) -> tuple[torch.Tensor, ...]:
    """Inputs of a model, always the same. A batch of one would freeze the batch's size in the graph."""
    import torch

    generator = torch.Generator().manual_seed(batch)
    shape = (batch, spec.channels, *spec.image_size)
    return tuple(torch.randn(shape, generator=generator) for _ in range(1 if spec.task == "classification" else 2))


def num_bytes(proto: ModelProto) -> int:
    """How large the weights are; protobuf itself cannot count beyond 2 GB."""
    return sum(len(tensor.raw_data) for tensor in proto.graph.initializer)


def differing_batch(proto: ModelProto, network: torch.nn.Module, spec: DataSpec) -> str | None:
    """Where the converted network departs from the torch one; None where they agree at every batch size."""
    import torch

    with _session(proto) as session:
        names = [known.name for known in session.get_inputs()]
        for batch in _BATCHES:
            images = example(spec, batch)
            with torch.inference_mode():
                wanted = network(*images).numpy()
            feeds = {name: array.numpy() for name, array in zip(names, images, strict=True)}
            try:
                given = session.run(None, feeds)[0]
            except Exception as cause:  # noqa: BLE001  # onnxruntime's errors share no base class
                return f"the converted graph does not run on {_images(batch)}: {str(cause).splitlines()[0]}"
            if given.shape != wanted.shape:
                return f"the converted graph gives outputs {given.shape} for {_images(batch)}, torch {wanted.shape}"
            # A model that answers with NaN is converted as it is; the gate says so.
            finite = np.isfinite(wanted)
            difference = float(np.abs(given - wanted).max(initial=0.0, where=finite))
            largest = float(np.abs(wanted).max(initial=0.0, where=finite))
            if not np.array_equal(np.isfinite(given), finite):
                return f"the converted graph's outputs are finite elsewhere than torch's, for {_images(batch)}"
            if not difference <= _TOLERANCE * max(1.0, largest):
                return f"the converted graph's outputs are off by {difference:.3g} for {_images(batch)}"
    return None


def _images(count: int) -> str:
    return "1 image" if count == 1 else f"{count} images"


@contextmanager
def _session(proto: ModelProto) -> Iterator[Any]:
    """An onnxruntime session on a graph in memory, by way of a folder where it is too large."""
    import onnx
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # the caller tells what is wrong
    providers = ["CPUExecutionProvider"]
    if num_bytes(proto) < BYTES_IN_ONE_FILE:
        yield onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=providers)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "core.onnx")
        onnx.save_model(proto, path, save_as_external_data=True, location="core.onnx.data")
        yield onnxruntime.InferenceSession(path, options, providers=providers)
