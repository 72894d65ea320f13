"""Checkpoints: tensors and plain values in one .safetensors file that carries its own sha256.

Nothing is unpickled on loading. The file is written aside, flushed and renamed, so that a kill or a full disk leaves
the previous one.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from bench.errors import BenchError
from bench.files import atomic

__all__ = ["flatten", "load", "save", "unflatten"]


def save(path: Path, tensors: dict[str, torch.Tensor], state: dict[str, Any] | None = None) -> str:
    """Write tensors and JSON values; returns the sha256 over both. Raises BenchError where the disk is full."""
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in sorted(tensors.items())}
    text = json.dumps(state or {}, sort_keys=True)
    digest = _digest(plain, text)
    try:
        with atomic(path) as partial:
            save_file(plain, partial, metadata={"state": text, "sha256": digest})
    except (OSError, SafetensorError) as cause:
        raise BenchError(
            f"{path}: the checkpoint could not be written: {cause}",
            hint="the one before is kept: free some space, then go on with --resume",
        ) from cause
    return digest


def load(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Read a checkpoint. Raises BenchError where it is missing, damaged, or its sha256 differs."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # no mapping
    except (SafetensorError, OSError) as cause:
        raise BenchError(f"{path}: not a readable checkpoint: {cause}", hint="start the run anew") from cause
    text = metadata.get("state", "{}")
    if metadata.get("sha256") != _digest(tensors, text):
        raise BenchError(
            f"{path}: damaged, its sha256 is not the one that was written",
            hint="restore the file or start the run anew",
        )
    state: dict[str, Any] = json.loads(text)
    return tensors, state


def flatten(prefix: str, tensors: dict[str, Any]) -> dict[str, torch.Tensor]:
    """{"a": {"b": t}} -> {"prefix/a/b": t}; what is no tensor is left out."""
    flat: dict[str, torch.Tensor] = {}
    for name, value in tensors.items():
        if isinstance(value, dict):
            flat |= flatten(f"{prefix}/{name}", value)
        elif isinstance(value, torch.Tensor):
            flat[f"{prefix}/{name}"] = value
    return flat


def unflatten(prefix: str, flat: dict[str, torch.Tensor], *, depth: int = 1) -> dict[str, Any]:
    """The inverse of `flatten` for names below one prefix, for a tree of that depth; deeper slashes are names' own."""
    tree: dict[str, Any] = {}
    for name, tensor in flat.items():
        if not name.startswith(f"{prefix}/"):
            continue
        *parents, leaf = name.removeprefix(f"{prefix}/").split("/", depth - 1)
        place = tree
        for parent in parents:
            place = place.setdefault(parent, {})
        place[leaf] = tensor
    return tree


def _digest(tensors: dict[str, torch.Tensor], text: str) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
