"""What was written comes back, or an error does."""

from __future__ import annotations

import errno
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.errors import BenchError
from bench.stages import checkpoint

_TENSORS = {
    "model/weight": torch.randn(3, 4),
    "model/half": torch.randn(5).bfloat16(),
    "model/fp16": torch.randn(2, 2).half(),
    "model/steps": torch.tensor(7),
    "model/mask": torch.tensor([True, False]),
    "model/empty": torch.zeros(0, 3),
    "model/transposed": torch.randn(4, 3).T,
    "model/layout": torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last),
    "rng/torch": torch.get_rng_state(),
}
_STATE: dict[str, Any] = {"epoch": 3, "best": [-0.1, float("-inf")], "name": "ñ", "nested": {"a": [1, None, True]}}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "checkpoints" / "last.safetensors"
    checkpoint.save(file, _TENSORS, _STATE)
    return file


def test_everything_comes_back(path: Path) -> None:
    tensors, state = checkpoint.load(path)
    assert state == _STATE
    assert tensors.keys() == _TENSORS.keys()
    for name, tensor in tensors.items():
        assert tensor.dtype == _TENSORS[name].dtype
        assert tensor.shape == _TENSORS[name].shape
        assert torch.equal(tensor, _TENSORS[name])


def test_the_digest_covers_values_names_and_state(tmp_path: Path) -> None:
    tensor = torch.arange(4.0)
    variants: list[tuple[dict[str, torch.Tensor], dict[str, Any] | None]] = [
        ({"a": tensor}, None),
        ({"a": tensor + 1}, None),
        ({"b": tensor}, None),
        ({"a": tensor.reshape(2, 2)}, None),
        ({"a": tensor.view(torch.int32)}, None),
        ({"a": tensor}, {"epoch": 1}),
    ]
    assert len({checkpoint.save(tmp_path / "a", *variant) for variant in variants}) == len(variants)
    assert checkpoint.save(tmp_path / "a", {"a": tensor, "c": tensor}) == checkpoint.save(
        tmp_path / "b", {"c": tensor, "a": tensor}
    )


def test_tensors_that_share_memory_are_written_each(tmp_path: Path) -> None:
    tied = torch.randn(3, requires_grad=True)
    checkpoint.save(tmp_path / "a", {"one": tied, "two": tied, "part": tied[:2]})
    tensors, _ = checkpoint.load(tmp_path / "a")
    assert torch.equal(tensors["one"], tensors["two"])
    assert not tensors["one"].requires_grad


@pytest.mark.parametrize("seed", range(60))
def test_one_changed_byte_is_noticed(path: Path, seed: int) -> None:
    chance = random.Random(seed)  # no secret
    content = bytearray(path.read_bytes())
    place = chance.randrange(len(content) if seed % 2 else 400)  # the header is short: half of the tries go there
    content[place] ^= 1 << chance.randrange(8)
    path.write_bytes(content)
    with pytest.raises(BenchError, match=r"last.safetensors: (damaged, its sha256|not a readable checkpoint)"):
        checkpoint.load(path)


@pytest.mark.parametrize("kept", [0, 4, 8, 100, 1000, -1])
def test_a_truncated_file_is_noticed(path: Path, kept: int) -> None:
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(BenchError, match="not a readable checkpoint") as error:
        checkpoint.load(path)
    assert error.value.hint == "start the run anew"


def test_a_missing_file_and_a_foreign_one(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="not a readable checkpoint"):
        checkpoint.load(tmp_path / "nowhere")
    with pytest.raises(BenchError, match="not a readable checkpoint"):
        checkpoint.load(tmp_path)
    torch.save(_TENSORS, tmp_path / "pickled.pt")
    with pytest.raises(BenchError, match="not a readable checkpoint"):
        checkpoint.load(tmp_path / "pickled.pt")


@pytest.mark.parametrize("moment", ["write", "flush"])
def test_a_full_disk_keeps_the_one_before(path: Path, monkeypatch: pytest.MonkeyPatch, moment: str) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    before = path.read_bytes()
    monkeypatch.setattr("os.fsync" if moment == "flush" else "bench.stages.checkpoint.save_file", full)
    with pytest.raises(BenchError, match=r"could not be written: .*No space left on device") as error:
        checkpoint.save(path, {"a": torch.zeros(1)})
    assert error.value.hint == "the one before is kept: free some space, then go on with --resume"
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_nothing_is_unpickled(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        pytest.fail("something was unpickled")

    for name in ("pickle.load", "pickle.loads", "pickle.Unpickler", "torch.load"):
        monkeypatch.setattr(name, refuse)
    checkpoint.load(path)


def test_flatten_and_back() -> None:
    tree = {"0": {"step": torch.tensor(1.0), "exp_avg": torch.zeros(2)}, "1": {"step": torch.tensor(2.0)}}
    flat = checkpoint.flatten("optimizer", {**tree, "2": {"momentum_buffer": None}})
    assert set(flat) == {"optimizer/0/step", "optimizer/0/exp_avg", "optimizer/1/step"}
    assert checkpoint.unflatten("optimizer", {**flat, "model/weight": torch.zeros(1)}, depth=2) == tree
    assert checkpoint.unflatten("opt", flat) == {}
