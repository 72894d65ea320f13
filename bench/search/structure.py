"""What a model's speed and size hang on, read off the model that was built: a dropout rate changes neither."""

from __future__ import annotations

import json
from types import BuiltinFunctionType, FunctionType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

__all__ = ["structure"]


def structure(model: torch.nn.Module) -> list[Any] | None:
    """Each module's name, class, settings and the shapes of its tensors, as JSON holds them; dropout rates left out.

    Models of one plugin that agree in it export to the same graph. None where a module holds something that cannot be
    written down, so that nobody can say.
    """
    import torch

    plain = set(vars(torch.nn.Module()))
    found = []
    for name, module in model.named_modules():
        drops = isinstance(module, torch.nn.modules.dropout._DropoutNd)  # noqa: SLF001  # what all its dropouts are
        settings = {
            key: value
            for key, value in vars(module).items()
            if key not in plain and not (drops and key in {"p", "inplace"})
        }
        tensors = {
            key: [list(tensor.shape), str(tensor.dtype)]
            for part in (module.named_parameters(recurse=False), module.named_buffers(recurse=False))
            for key, tensor in part
        }
        found.append([name, f"{type(module).__module__}.{type(module).__qualname__}", _written(settings), tensors])
    try:
        written: list[Any] = json.loads(json.dumps(found, sort_keys=True))
    except (TypeError, ValueError):
        return None
    return written


def _written(value: Any) -> Any:
    """Functions and classes by their names; what JSON cannot hold stays, and is refused by it, as closures are."""
    if isinstance(value, dict):
        return {str(key): _written(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_written(one) for one in value]
    is_named = isinstance(value, type | BuiltinFunctionType | FunctionType)
    if is_named and not getattr(value, "__closure__", None):
        return f"{value.__module__}.{value.__qualname__}"
    return value
