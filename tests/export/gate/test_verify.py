"""bench verify: a sound file holds, by itself, by its samples and by its run; each damage is found."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from onnx import ModelProto

from bench.errors import BenchError, DataError, GateError
from bench_export.card import Preprocessing, read_card, write_card
from bench_export.commands.verify import verify as command
from bench_export.gate.answers import reference_answers
from bench_export.gate.packing import pack, pack_array, unpack
from bench_export.gate.probes import build_probes, probe_images
from bench_export.gate.recorded import find_samples, pack_samples, recorded_names
from bench_export.gate.verify import Verified, verify


@pytest.fixture
def exported(finished: Any) -> Path:
    """A whole file, as the exporter leaves it."""
    candidate = finished.write(finished.joined())
    samples = finished.material.gate()
    report = finished.ask(candidate)
    answers = reference_answers(finished.restored.predict, samples)
    how = finished.preprocessing
    gate = {
        **report.as_json(),
        "probes": build_probes(finished.restored.predict, how, "classification", candidate=candidate),
        "samples": pack_samples(samples, answers),
    }
    path: Path = candidate.session.path
    write_card(path, replace(finished.card, gate=gate))
    return path


def _changed(path: Path, **changes: Any) -> Path:
    card = read_card(path)
    assert card is not None
    write_card(path, replace(card, **changes))
    return path


def _failed(result: Verified) -> dict[str, str]:
    return {check.name: check.found for check in result.checks if check.holds is False}


def test_a_sound_file_holds_by_itself_and_by_its_samples(finished: Any, exported: Path) -> None:
    result = verify(exported, data=finished.root)
    assert _failed(result) == {}
    assert result.passed
    assert [check.name for check in result.checks[:6]] == [
        "metadata",
        "gate at the export",
        "graph",
        "finite answers",
        "sizes of batches",
        "answers as at the export",
    ]
    assert result.reports["data"]["agreement"] == 1.0
    assert result.reports["data"]["samples"] == len(finished.material.gate())


def test_a_sound_file_holds_against_its_run_and_no_other(finished: Any, exported: Path) -> None:
    assert verify(exported, against=str(finished.run.folder)).passed
    other = verify(_changed(exported, run_id="0" * 16), against=str(finished.run.folder))
    assert "it was exported from" in _failed(other)[f"against {finished.run.name}"]


def test_changed_weights_are_found_by_every_way(
    finished: Any, exported: Path, plant: Callable[..., ModelProto]
) -> None:
    card = read_card(exported)
    assert card is not None
    finished.write(finished.joined(plant(finished.core, "Conv", lambda weight: -weight)), gate=card.gate)
    result = verify(exported, data=finished.root, against=str(finished.run.folder))
    found = _failed(result)
    assert set(found) == {
        "answers as at the export",
        f"samples below {finished.root}",
        f"against {finished.run.name}",
    }
    assert "the first departure is Conv " in found[f"against {finished.run.name}"]


def test_missing_images_are_counted_and_none_is_an_error(finished: Any, exported: Path, tmp_path: Path) -> None:
    card = read_card(exported)
    assert card is not None
    names = recorded_names(card.gate)
    some = tmp_path / "some"
    for (name,) in names[:5]:
        (some / name).parent.mkdir(parents=True, exist_ok=True)
        (some / name).write_bytes((finished.root / name).read_bytes())
    result = verify(exported, data=some)
    assert result.passed
    assert result.reports["data"]["missing"] == len(names) - 5
    assert f"{len(names) - 5} images not found" in result.checks[-1].found
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match=r"none of the .* images that the model was judged on is there"):
        verify(exported, data=tmp_path / "none")


def test_an_image_that_has_become_unreadable_is_named(exported: Path, tmp_path: Path) -> None:
    card = read_card(exported)
    assert card is not None
    name = recorded_names(card.gate)[0][0]
    (tmp_path / name).parent.mkdir(parents=True)
    (tmp_path / name).write_bytes(b"<html>")
    with pytest.raises(DataError, match=name):
        verify(exported, data=tmp_path)


def test_arrays_cannot_be_found_again(finished: Any, exported: Path) -> None:
    card = read_card(exported)
    assert card is not None
    gate = {**(card.gate or {}), "samples": {"split": "test", "note": "", "total": 9, "count": 0, "files": False}}
    with pytest.raises(BenchError, match="consists of arrays") as caught:
        verify(_changed(exported, gate=gate), data=finished.root)
    assert caught.value.hint is not None
    assert "--against RUN" in caught.value.hint


def test_incomplete_or_changed_metadata_do_not_hold(exported: Path) -> None:
    assert _failed(verify(_changed(exported, versions={})))["metadata"] == "missing: versions"
    found = _failed(verify(_changed(exported, versions={"a": "1"}, recipe_digest="0" * 64)))
    assert found["metadata"] == "the recipe's digest is not the recipe's"


def test_a_rejected_file_does_not_hold(exported: Path) -> None:
    card = read_card(exported)
    assert card is not None
    gate = {**(card.gate or {}), "passed": False, "summary": "rejected: for a reason"}
    assert _failed(verify(_changed(exported, gate=gate))) == {"gate at the export": "rejected: for a reason"}


@pytest.mark.parametrize("damage", [None, {"trained": "no base64!"}, {"trained": pack(b"123")}, {}])
def test_damaged_probes_are_an_error(exported: Path, damage: Any) -> None:
    card = read_card(exported)
    assert card is not None
    with pytest.raises(BenchError, match=r"probes are damaged|no answers to check against"):
        verify(_changed(exported, gate={**(card.gate or {}), "probes": damage}))


@pytest.mark.parametrize(
    "values",
    [
        {"paths": [["a.png"]], "labels": [], "best": []},
        {"paths": [[]], "labels": [0], "best": [[]]},
        ["not", "a", "table"],
        {"paths": [5], "labels": [0], "best": [[]]},
        {"paths": [[5]], "labels": [0], "best": [[]]},
    ],
)
def test_damaged_names_of_samples_are_an_error(exported: Path, values: Any) -> None:
    card = read_card(exported)
    assert card is not None
    packed = {"files": True, "total": 1, "split": "test", "note": "", "data": pack(json.dumps(values).encode())}
    with pytest.raises(BenchError, match="the names of its samples are damaged"):
        find_samples(replace(card, gate={"samples": packed}), Path())


def test_names_that_leave_the_folder_are_not_opened(exported: Path, tmp_path: Path) -> None:
    card = read_card(exported)
    assert card is not None
    (tmp_path / "secret.png").write_bytes(b"")
    (tmp_path / "root").mkdir()
    best = [[[0, 0.5]]] * 2
    values = {"paths": [["../secret.png"], [str(tmp_path / "secret.png")]], "labels": [0, 0], "best": best}
    packed = {"files": True, "total": 2, "split": "test", "note": "", "data": pack(json.dumps(values).encode())}
    with pytest.raises(DataError, match="none of the 2 images"):
        find_samples(replace(card, gate={"samples": packed}), tmp_path / "root")


def test_packed_text_that_unpacks_to_too_much_is_refused() -> None:
    assert unpack(pack(b"visionbench")) == b"visionbench"
    with pytest.raises(ValueError, match="cut off or too large"):
        unpack(pack(bytes(65_000_000)))


def test_probes_are_the_same_everywhere_and_differ_among_each_other() -> None:
    how = Preprocessing((16, 24), 3, "squash", "bilinear", (0.5,) * 3, (0.5,) * 3)
    batches = probe_images(how, "verification")
    assert [len(batch) for batch in batches] == [2] * 4
    assert len({side.shape for batch in batches for side in batch}) == 4
    flat = [image.tobytes() for batch in batches for side in batch for image in side]
    assert len(set(flat)) == len(flat)
    assert all(np.std(np.frombuffer(image, np.uint8)) > 20 for image in flat)
    assert int(batches[0][0].astype(np.int64).sum()) == 1_314_127  # integers alone: the same on any machine


def test_the_command_exits_with_4_and_says_why(exported: Path) -> None:
    done = CliRunner().invoke(command, [str(exported), "--json"])
    assert done.exit_code == 0
    assert json.loads(done.stdout)["passed"] is True
    done = CliRunner().invoke(command, [str(_changed(exported, versions={}))])
    assert isinstance(done.exception, GateError)
    assert done.exception.exit_code == 4
    assert "metadata: missing: versions" in str(done.exception)
    assert "FAILS" in done.stdout


def test_a_file_that_is_not_ours_or_not_there_is_an_error(toy_models: Any, tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="no file of bench export"):
        verify(toy_models.foreign(tmp_path / "foreign.onnx"))
    with pytest.raises(BenchError, match="there is no such file"):
        verify(tmp_path / "missing.onnx")


def test_torch_is_not_imported_unless_a_run_is_named(finished: Any, exported: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from bench_export.gate.verify import verify; "
        f"assert verify(Path({str(exported)!r}), data=Path({str(finished.root)!r})).passed; "
        "heavy = {'torch', 'pydantic', 'mlflow'} & set(sys.modules); assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True)


def test_probes_that_differed_much_at_the_export_allow_no_other_answers_now(exported: Path) -> None:
    card = read_card(exported)
    assert card is not None
    gate = dict(card.gate or {})
    probes = {**gate["probes"], "exported": pack_array(np.full((28, 3), 1.0, dtype=np.float32))}
    found = _failed(verify(_changed(exported, gate={**gate, "probes": probes})))
    assert "from its own then" in found["answers as at the export"]


def test_damaged_limits_are_replaced_by_the_usual_ones(exported: Path) -> None:
    card = read_card(exported)
    assert card is not None
    assert verify(_changed(exported, gate={**(card.gate or {}), "limits": {"batch_difference": "none"}})).passed
