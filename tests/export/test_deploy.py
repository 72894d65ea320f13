"""What a machine that only deploys needs: the wheel and the `deploy` group, in a clean environment, without torch."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import tomllib
import urllib.request
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from PIL import Image

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
STARTS_WITHIN_S = 60
PIP = ("-m", "pip", "--disable-pip-version-check", "--quiet")


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bench` of an environment that holds nothing else; made with the network, or the index, that pip knows."""
    folder = tmp_path_factory.mktemp("deploy")
    wheel = ("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(ROOT))
    subprocess.run([sys.executable, *PIP, *wheel], check=True)
    venv.create(folder / "venv", with_pip=True)
    python = folder / "venv" / "bin" / "python"
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["dependency-groups"]
    [built] = folder.glob("*.whl")
    subprocess.run([str(python), *PIP, "install", *groups["deploy"]], check=True)
    subprocess.run([str(python), *PIP, "install", "--no-deps", str(built)], check=True)
    return python.with_name("bench")


@pytest.fixture
def workplace(tmp_path: Path, toy_models: ModuleType) -> Path:
    """Two models and a few photos."""
    toy_models.prove(toy_models.classifier(tmp_path / "model.onnx"))
    toy_models.prove(toy_models.verifier(tmp_path / "pairs.onnx"))
    for name, colour in (("red", (220, 20, 20)), ("green", (10, 200, 30)), ("blue", (0, 0, 255))):
        (tmp_path / "photos").mkdir(exist_ok=True)
        Image.new("RGB", (40, 30), colour).save(tmp_path / "photos" / f"{name}.png")
    return tmp_path


def run(*command: object, folder: Path) -> str:
    """Stdout of a command that knows nothing of the environment that tests it."""
    done = subprocess.run(
        list(map(str, command)), cwd=folder, env=clean_environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def clean_environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("BENCH_", "PYTHON", "VIRTUAL_"))}
    return kept | {"COLUMNS": "80"}


@pytest.mark.parametrize("name", ["torch", "torchvision", "timm", "mlflow", "optuna", "sklearn", "safetensors"])
def test_what_trains_is_not_installed(deployed: Path, tmp_path: Path, name: str) -> None:
    program = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({name!r}) is not None)"
    run(deployed.with_name("python"), "-c", program, folder=tmp_path)


def test_predict_answers(deployed: Path, workplace: Path) -> None:
    value = json.loads(run(deployed, "predict", "model.onnx", "photos", "--format", "json", folder=workplace))
    assert [one["class"] for one in value["answers"]] == ["blue", "green", "red"]
    told = run(deployed, "predict", "pairs.onnx", "photos/red.png", "photos", folder=workplace)
    assert [line.split()[2] for line in told.splitlines()] == ["answer", "different", "different", "same"]


def test_the_python_interface_answers(deployed: Path, workplace: Path) -> None:
    program = "import bench_export; print(bench_export.load('model.onnx').predict(['photos/blue.png']).guesses)"
    assert run(deployed.with_name("python"), "-c", program, folder=workplace) == "[2]\n"


def test_inspect_shows_the_card(deployed: Path, workplace: Path) -> None:
    told = run(deployed, "inspect", "model.onnx", folder=workplace)
    assert "3 classes: red, green, blue" in told
    assert "accepted on 100 samples" in told


@pytest.mark.parametrize("model", ["model.onnx", "pairs.onnx"])
def test_verify_proves_the_file(deployed: Path, workplace: Path, model: str) -> None:
    assert "holds" in run(deployed, "verify", model, folder=workplace)


@pytest.mark.skipif(sys.platform != "linux" or os.uname().machine != "x86_64", reason="no LoadGen for this platform")
def test_latency_measures(deployed: Path, workplace: Path) -> None:
    told = run(
        deployed,
        "latency",
        "model.onnx",
        "--quick",
        "--data",
        "photos",
        "--json",
        "--html",
        "latency.html",
        folder=workplace,
    )
    record = json.loads(told)
    [candidate] = record["candidates"]
    assert candidate["measures"]["end_to_end"]["mean_ms"] > 0
    assert not record["publishable"]
    assert "<svg" in (workplace / "latency.html").read_text(encoding="utf-8") or "data:image" in (
        workplace / "latency.html"
    ).read_text(encoding="utf-8")


def test_serve_answers_over_http(deployed: Path, workplace: Path) -> None:
    with serving(deployed, workplace) as address:
        assert "<html" in get(address).decode()
        answer = json.loads(post(f"{address}/predict", workplace / "photos" / "green.png"))
        assert "green" in json.dumps(answer)
        assert get(f"{address}/metrics")


@contextmanager
def serving(bench: Path, folder: Path) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    command = [str(bench), "serve", "model.onnx", "--port", str(port)]
    process: subprocess.Popen[Any]
    with subprocess.Popen(command, cwd=folder, env=clean_environment()) as process:
        try:
            wait_for(f"{address}/health", process)
            yield address
        finally:
            process.send_signal(signal.SIGINT)
            ended = process.wait(30)
    assert ended in {0, 130}


def wait_for(address: str, process: subprocess.Popen[Any]) -> None:
    until = time.monotonic() + STARTS_WITHIN_S
    while True:
        assert process.poll() is None
        try:
            get(address)
        except OSError:
            assert time.monotonic() < until
            time.sleep(0.1)
        else:
            return


def get(address: str) -> bytes:
    with urllib.request.urlopen(address, timeout=10) as response:  # noqa: S310  # our own server
        content: bytes = response.read()
    return content


def post(address: str, file: Path) -> bytes:
    head = (
        f'--x\r\nContent-Disposition: form-data; name="file"; filename="{file.name}"\r\nContent-Type: image/png\r\n\r\n'
    )
    body = head.encode() + file.read_bytes() + b"\r\n--x--\r\n"
    request = urllib.request.Request(  # noqa: S310
        address, data=body, headers={"Content-Type": "multipart/form-data; boundary=x"}
    )
    with urllib.request.urlopen(request, timeout=10) as response:  # noqa: S310
        content: bytes = response.read()
    return content
