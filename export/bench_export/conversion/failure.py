"""Which operator of which module an exporter cannot convert."""

from __future__ import annotations

import io
import logging
import os
import re
import sys
import warnings
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import TYPE_CHECKING, Any

from bench_export.conversion.proof import example

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import torch

    from bench.kinds import DataSpec

__all__ = ["quiet", "reason_of", "where_it_fails"]

_STDERR = 2

_OPERATOR = re.compile(r"(aten|prims|prim|torchvision|quantized)(?:\.|::)(\w+)")


@contextmanager
def quiet() -> Iterator[None]:
    """Without what torch's exporters print, log and warn of: the result is judged, and an error is raised."""
    import torch

    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    # The older exporter prints the whole graph from C++ when it fails, and torch offers no switch for that.
    torch._C._jit_set_onnx_log_output_stream("stderr")  # noqa: SLF001  # to the one without a buffer
    sys.stderr.flush()
    kept, nowhere = os.dup(_STDERR), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, _STDERR)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        os.dup2(kept, _STDERR)
        os.close(kept)
        os.close(nowhere)
        logging.disable(before)


def reason_of(error: BaseException) -> str:
    """An exporter's error in one line: its innermost cause, which says more than "failed to export"."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def where_it_fails(network: torch.nn.Module, spec: DataSpec, reasons: Sequence[str]) -> str:
    """Operator, module and both exporters' reasons, in one line."""
    operators = [f"{match[1]}::{match[2]}" for reason in reasons for match in _OPERATOR.finditer(reason)]
    operator = operators[0] if operators else None
    module = _module_of(network, spec, operator)
    place = f"operator {operator}" if operator else "an operation"
    where = f"module {module!r}" if module else "the model's own forward"
    return f"{place} in {where} ({'; '.join(dict.fromkeys(reasons))})"


def _module_of(network: torch.nn.Module, spec: DataSpec, operator: str | None) -> str:
    """The module in which the operator stands, or in which tracing stops; "" where it is the model itself."""
    import torch

    entered: list[str] = []
    hooks = []
    for name, module in network.named_modules():
        hooks.append(module.register_forward_pre_hook(lambda *_, name=name: entered.append(name)))
        hooks.append(module.register_forward_hook(lambda *_: _left(entered)))
    images = example(spec)
    batch = torch.export.Dim("N")
    shapes = tuple({0: batch} for _ in images)
    try:
        with quiet():
            program = torch.export.export(network, images, dynamic_shapes=shapes, strict=False)
    except Exception:  # noqa: BLE001  # that it raises is known; where is what is asked
        return entered[-1] if entered else ""
    finally:
        for hook in hooks:
            hook.remove()
    if operator is None:
        return ""
    with quiet():
        return _in_graph(program, operator) or _in_graph(program.run_decompositions(), operator)


def _left(entered: list[str]) -> None:
    entered.pop()


def _in_graph(program: Any, operator: str) -> str:
    """The module of the first node with that operator, from what torch notes beside each node."""
    for node in program.graph.nodes:
        if str(node.target).startswith(operator.replace("::", ".")):
            stack = list(node.meta.get("nn_module_stack", {}).values())
            return str(stack[-1][0]).removeprefix("L['self'].") if stack else ""
    return ""
