"""An onnxruntime session on a file: where it runs, with how many threads, and what it says when it cannot."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bench.errors import BenchError, RecipeError
from bench_export.card import Card, read_card
from bench_export.external_data import check_external_data

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Session", "check_file", "open_session"]

_PROVIDERS: dict[str, tuple[str, ...]] = {
    "cpu": ("CPUExecutionProvider",),
    "cuda": ("CUDAExecutionProvider", "CPUExecutionProvider"),
}
#: Without TF32, whose 10 bits of mantissa would change the answers, and the pixels of a resized image.
_PROVIDER_OPTIONS: dict[str, dict[str, str]] = {"CUDAExecutionProvider": {"use_tf32": "0"}, "CPUExecutionProvider": {}}
_RECORD_NODES = "session.record_ep_graph_assignment_info"
#: What onnxruntime computes on the CPU on purpose, however much CUDA is asked for: sizes, a few numbers each. All of it
#: has kernels for CUDA, so that none of it is here for want of one.
_SHAPE_ARITHMETIC = {
    *("Add", "Cast", "Ceil", "Concat", "Div", "Equal", "Expand", "Floor", "Gather", "Identity", "If", "Max", "Min"),
    *(
        "Mul",
        "Range",
        "ReduceProd",
        "Reshape",
        "Round",
        "Shape",
        "Size",
        "Slice",
        "Split",
        "Squeeze",
        "Sub",
        "Unsqueeze",
    ),
    *("Where",),
}
_ERROR = 3  # onnxruntime's severity: its warnings on optimisations concern nobody who uses it


@dataclass(frozen=True, slots=True)
class Session:
    """A session and what was asked for. `threads` are the intra-op threads; None: onnxruntime's choice, a core each."""

    path: Path
    inference: Any
    card: Card | None
    providers_asked: tuple[str, ...]
    providers_used: tuple[str, ...]
    threads: int | None
    tuning: Mapping[str, Any]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    def run(self, *arrays: NDArray[Any]) -> list[NDArray[np.generic]]:
        """Inputs in the file's order -> outputs in the file's order."""
        if self.tuning.get("io_binding"):
            return self._run_bound(arrays)
        result: list[NDArray[np.generic]] = self.inference.run(None, dict(zip(self.inputs, arrays, strict=True)))
        return result

    def _run_bound(self, arrays: tuple[NDArray[Any], ...]) -> list[NDArray[np.generic]]:
        """The same through IO binding, which saves a GPU some synchronisation."""
        import numpy as np

        binding = self.inference.io_binding()
        for name, array in zip(self.inputs, arrays, strict=True):
            binding.bind_cpu_input(name, np.ascontiguousarray(array))
        for name in self.outputs:
            binding.bind_output(name)
        self.inference.run_with_iobinding(binding)
        outputs: list[NDArray[np.generic]] = binding.copy_outputs_to_cpu()
        return outputs

    def nodes(self) -> dict[str, int]:
        """Provider -> how many nodes of the optimised graph it runs; {} for a session opened without `profile_nodes`."""
        try:
            self.inference.get_session_options().get_session_config_entry(_RECORD_NODES)
        except RuntimeError:  # it was not set
            return {}
        counts: Counter[str] = Counter()
        for part in self.inference.get_provider_graph_assignment_info():
            counts[part.ep_name] += len(part.get_nodes())
        return dict(counts)


def open_session(
    path: Path,
    *,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    threads: int | None = None,
    tuning: Mapping[str, Any] | None = None,
    profile_nodes: bool = False,
) -> Session:
    """Open a file with onnxruntime.

    `tuning` (intra_op_threads, spinning, graph_level, io_binding) replaces the card's; the card's counts on the machine
    that it was measured on. With "cuda" nothing may fall back to the CPU unnoticed. Raises BenchError for a file that
    is missing or damaged, and RecipeError for a device that is absent.
    """
    import onnxruntime

    path = Path(path)
    check_file(path)
    available = onnxruntime.get_available_providers()
    if device == "cuda" and "CUDAExecutionProvider" not in available:
        raise RecipeError(
            f"CUDAExecutionProvider is not in this onnxruntime, which has {', '.join(available)}",
            hint="pip install onnxruntime-gpu on a machine with CUDA, or --device cpu",
        )
    use_cuda = device == "cuda" or (device == "auto" and _has_cuda(available))
    asked = _PROVIDERS["cuda" if use_cuda else "cpu"]
    card = read_card(path)
    check_external_data(path)
    if tuning is None:
        tuning = _own_tuning(card, "cuda" if use_cuda else "cpu")
    tuned = tuning.get("intra_op_threads")
    threads = threads or (tuned if isinstance(tuned, int) and tuned > 0 else None)
    options = _options(threads, tuning, profile_nodes=profile_nodes or device == "cuda")
    try:
        inference = onnxruntime.InferenceSession(
            str(path), options, providers=[(name, _PROVIDER_OPTIONS[name]) for name in asked]
        )
    except Exception as cause:  # onnxruntime's own classes share no base but Exception
        raise _explained(path, cause) from cause
    if device == "cuda" and "CUDAExecutionProvider" not in inference.get_providers():
        raise BenchError(
            "CUDA was asked for, but onnxruntime could not start it and would run on the CPU",
            hint="check the driver and the CUDA and cuDNN libraries (nvidia-smi), or --device cpu",
        )
    session = Session(
        path=path,
        inference=inference,
        card=card,
        providers_asked=tuple(asked[:1]),
        providers_used=tuple(inference.get_providers()),
        threads=threads,
        tuning=dict(tuning),
        inputs=tuple(one.name for one in inference.get_inputs()),
        outputs=tuple(one.name for one in inference.get_outputs()),
    )
    if device == "cuda":
        _refuse_fallback(session)
    return session


def check_file(path: Path) -> None:
    """Raise RecipeError where a path cannot be an ONNX file, and BenchError where the file is empty."""
    try:
        if path.is_dir():
            raise RecipeError(
                f"{path}: a folder, not an ONNX file", hint="bench export --onnx writes model.onnx into a run"
            )
        if not path.is_file():
            raise RecipeError(f"{path}: there is no such file", hint="bench export --onnx writes one")
        with path.open("rb") as file:
            is_empty = not file.read(1)
    except OSError as cause:
        raise RecipeError(f"{path}: cannot be read: {cause.strerror}") from cause
    if is_empty:
        raise BenchError(f"{path}: empty", hint="export it again, or copy it again")


def _options(threads: int | None, tuning: Mapping[str, Any], *, profile_nodes: bool) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = _ERROR
    if threads:
        options.intra_op_num_threads = int(threads)
    levels = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = {
        "none": levels.ORT_DISABLE_ALL,
        "basic": levels.ORT_ENABLE_BASIC,
        "extended": levels.ORT_ENABLE_EXTENDED,
    }.get(str(tuning.get("graph_level", "all")), levels.ORT_ENABLE_ALL)
    if "spinning" in tuning:
        options.add_session_config_entry("session.intra_op.allow_spinning", "1" if tuning["spinning"] else "0")
    if profile_nodes:
        options.add_session_config_entry(_RECORD_NODES, "1")
    return options


def _own_tuning(card: Card | None, device: str) -> Mapping[str, Any]:
    """What the card says of the tuning; {} where it was found on another machine, or for another device."""
    tuning = (card.tuning if card else None) or {}
    if not tuning:
        return {}
    from bench.environment import processor
    from bench_export.latency.hardware import usable_cores

    here = (processor()[0], len(usable_cores()), device)
    found_on = (tuning.get("machine"), tuning.get("cores", here[1]), tuning.get("device", "cpu"))
    return tuning if found_on == here else {}


def _has_cuda(available: list[str]) -> bool:
    """Whether there is a device at all: onnxruntime lists the provider on machines without one, and warns later."""
    return "CUDAExecutionProvider" in available and any(
        Path(place).exists() for place in ("/dev/nvidiactl", "/dev/nvidia0", "/dev/dxg")
    )


def _refuse_fallback(session: Session) -> None:
    """Raise BenchError where a node that computes is not on the GPU."""
    elsewhere = Counter(
        f"{node.op_type} on {part.ep_name}"
        for part in session.inference.get_provider_graph_assignment_info()
        for node in part.get_nodes()
        if part.ep_name != "CUDAExecutionProvider" and node.op_type not in _SHAPE_ARITHMETIC
    )
    if elsewhere:
        shown = ", ".join(f"{count} {what}" for what, count in elsewhere.most_common(5))
        raise BenchError(
            f"{session.path}: CUDA was asked for, but some nodes fell back to the CPU: {shown}",
            hint="--device auto allows that; int8 files are made for CPUs",
        )


def _explained(path: Path, cause: Exception) -> BenchError:
    text = " ".join(str(cause).split())
    if "protobuf parsing failed" in text.lower() or "INVALID_PROTOBUF" in text or "No graph was found" in text:
        return BenchError(f"{path}: truncated, or no ONNX model", hint="export it again, or copy it again")
    if "external data" in text.lower() or "External initializer" in text:
        return BenchError(
            f"{path}: its weights lie in another file that is missing, damaged or outside its folder: {text[:300]}",
            hint="keep the file with the weights beside the model",
        )
    return BenchError(f"{path}: onnxruntime cannot load it: {text[:300]}", hint="export it again")
