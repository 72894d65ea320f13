"""What is served beside predictions, who may ask, and how a server starts and ends."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from serving_process import running
from wire import exchange, form, get, post, post_form, send_raw

from bench.errors import BenchError, RecipeError
from bench_export.commands.serve import serve as command
from bench_export.serving.guard import Guard
from bench_export.serving.server import DEFAULT_PORT, Settings, serve, take_port


def test_health_says_which_model_is_ready(server: int) -> None:
    status, answer = get(server, "/health")
    assert status == 200
    assert answer == {
        "ready": True,
        "model": "colours.onnx",
        "run": "20261126-000000-0000-s0",
        "precision": "fp32",
        "task": "classification",
    }


def test_the_card_is_whole(server: int) -> None:
    status, card = get(server, "/card")
    assert status == 200
    assert card["classes"] == ["red", "green", "blue"]
    assert card["preprocessing"]["size"] == [8, 8]
    assert card["metrics"]["test_accuracy_low"] == 0.95
    assert card["server"]["max_megabytes"] == 1
    assert card["server"]["max_megapixels"] == 4
    assert card["server"]["providers"] == ["CPUExecutionProvider"]


def test_metrics_count_requests_latencies_and_batches(models: dict[str, Path], colours: dict[str, bytes]) -> None:
    with running(models["classes"]) as (port, _program):
        for _ in range(3):
            assert post(port, colours["red"])[0] == 200
        post_form(port, ("file", "a", colours["red"]), ("file", "b", colours["blue"]))
        post(port, b"nonsense")
        get(port, "/a/b/c")
        status, headers, body = exchange(port, "GET", "/metrics")
    lines = body.decode().splitlines()
    assert (status, headers["content-type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    for line in (
        'visionbench_requests_total{path="/predict",status="200"} 4',
        'visionbench_requests_total{path="/predict",status="415"} 1',
        'visionbench_requests_total{path="other",status="404"} 1',
        "visionbench_request_seconds_count 4",
        'visionbench_request_seconds_bucket{le="+Inf"} 4',
        "visionbench_images_total 5",
        "visionbench_batch_size_sum 5",
        "visionbench_queue_length 0",
    ):
        assert line in lines
    assert sum(line.startswith("# TYPE") for line in lines) == 6


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/x", 404), ("GET", "/predict", 405), ("PUT", "/predict", 405), ("POST", "/", 405), ("GET", "/docs", 404)],
)
def test_errors_of_routing_are_json_too(server: int, method: str, path: str, status: int) -> None:
    found, headers, body = exchange(server, method, path)
    assert (found, headers["content-type"]) == (status, "application/json")
    assert b'"hint": "GET / is the page' in body
    assert ("allow" in headers) == (status == 405)


def test_head_is_answered_without_a_body(server: int) -> None:
    for path in ("/", "/health", "/card", "/metrics"):
        status, _headers, body = exchange(server, "HEAD", path)
        assert (status, body) == (200, b"")


def test_the_page_may_load_nothing_from_elsewhere(server: int) -> None:
    status, headers, body = exchange(server, "GET", "/")
    assert status == 200
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "'unsafe" not in headers["content-security-policy"]
    assert "access-control-allow-origin" not in headers
    assert b"http://" not in body.replace(b"http://www.w3.org", b"")
    assert b"https://" not in body


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "localhost.evil.example"]
)
def test_foreign_names_are_refused(server: int, host: str) -> None:
    status, answer = get(server, "/card", Host=host)
    assert (status, answer["error"]["code"]) == (403, "unknown_host")


@pytest.mark.parametrize("host", ["localhost", "localhost:1", "127.0.0.1", "[::1]:80", "192.168.7.7:8000", "LOCALHOST"])
def test_addresses_and_own_names_are_taken(server: int, host: str) -> None:
    assert get(server, "/health", Host=host)[0] == 200


def test_other_pages_may_not_post(server: int, colours: dict[str, bytes]) -> None:
    own = f"127.0.0.1:{server}"
    for origin in ("http://evil.example", "null", f"http://127.0.0.1:{server + 1}"):
        status, answer = post(server, colours["red"], Host=own, Origin=origin)
        assert (status, answer["error"]["code"]) == (403, "foreign_origin")
    assert post(server, colours["red"], **{"Sec-Fetch-Site": "cross-site"})[0] == 403
    assert post(server, colours["red"], Host=own, Origin=f"http://{own}")[0] == 200
    assert exchange(server, "OPTIONS", "/predict", None, {"Origin": "http://evil.example"})[0] == 403


def test_a_name_may_be_allowed(models: dict[str, Path]) -> None:
    with running(models["classes"], "--allow-host", "Models.Example") as (port, _program):
        assert get(port, "/health", Host="models.example")[0] == 200
        assert get(port, "/health", Host="other.example")[0] == 403


def test_what_is_no_http_is_refused_as_json(server: int) -> None:
    answer = send_raw(server, b"HELLO\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json")
    assert b'"code": "invalid_http"' in answer


def test_a_full_queue_is_503_and_recovers(models: dict[str, Path], colours: dict[str, bytes]) -> None:
    many = form(*[("file", "a.png", colours["red"])] * 60)
    with running(models["classes"], "--max-batch", "1", "--max-delay-ms", "300") as (port, _program):
        statuses: list[int] = []
        threads = [
            threading.Thread(
                target=lambda: statuses.append(post(port, many, "multipart/form-data; boundary=a-boundary")[0])
            )
            for _ in range(24)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert set(statuses) == {200, 503}
        assert post(port, colours["red"])[0] == 200
        assert b"visionbench_queue_length 0" in exchange(port, "GET", "/metrics")[2]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_end_waits_for_requests_under_way(
    number: signal.Signals, models: dict[str, Path], colours: dict[str, bytes]
) -> None:
    with running(models["classes"], "--max-delay-ms", "900") as (port, program):
        found: list[int] = []
        assert get(port, "/health")[0] == 200
        with socket.create_connection(("127.0.0.1", port)):  # one that never says a word
            asking = threading.Thread(target=lambda: found.append(post(port, colours["red"])[0]))
            asking.start()
            time.sleep(0.3)
            program.send_signal(number)
            asking.join()
            assert found == [200]
            assert program.wait(10) == 0


def test_a_port_in_use_is_an_error_and_the_default_is_not(models: dict[str, Path]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(BenchError, match=rf"port {port} on 127\.0\.0\.1 cannot be used") as caught:
            serve(models["classes"], host="127.0.0.1", port=port, settings=Settings(), report=print, warn=print)
    assert "--port" in (caught.value.hint or "")
    with take_port("127.0.0.1", None) as first, take_port("127.0.0.1", None) as second:
        assert second.getsockname()[1] not in {DEFAULT_PORT, first.getsockname()[1]}


@pytest.mark.parametrize("port", [-1, 65_536])
def test_a_port_that_is_none(port: int) -> None:
    with pytest.raises(RecipeError, match="they go from 1 to 65535"):
        take_port("127.0.0.1", port)


def test_a_host_that_is_none() -> None:
    with pytest.raises(BenchError, match=r"cannot be used|is not known"):
        take_port("203.0.113.1", 0)  # of no machine (RFC 5737)


def test_a_host_that_no_name_can_be() -> None:
    with pytest.raises(BenchError, match="is not known"):
        take_port("a" * 100, 0)


def test_the_card_leaves_out_what_only_verify_reads(tmp_path: Path, toy_models: Any) -> None:
    gate = {"passed": True, "samples": {"total": 7, "data": "eNoB"}, "probes": {"trained": "eNoB"}}
    path = toy_models.classifier(tmp_path / "judged.onnx", gate=gate)
    with running(path) as (port, _program):
        assert get(port, "/card")[1]["gate"] == {"passed": True, "samples": {"total": 7}}


def test_a_model_that_is_missing_or_not_ours(tmp_path: Path, toy_models: object) -> None:
    with pytest.raises(RecipeError, match="no such file"):
        serve(tmp_path / "no.onnx", host="127.0.0.1", port=0, settings=Settings(), report=print, warn=print)
    foreign = toy_models.foreign(tmp_path / "foreign.onnx")  # type: ignore[attr-defined]
    with pytest.raises(BenchError, match="does not say its classes"):
        serve(foreign, host="127.0.0.1", port=0, settings=Settings(), report=print, warn=print)


def test_a_raw_export_is_served_like_any_other(tmp_path: Path, toy_models: object, colours: dict[str, bytes]) -> None:
    model = toy_models.classifier(tmp_path / "raw.onnx", raw=True)  # type: ignore[attr-defined]
    with running(model) as (port, _program):
        assert post(port, colours["lime"])[1]["images"][0]["label"] == "green"


def test_the_options_are_checked() -> None:
    for wrong in (["--max-batch", "0"], ["--threads", "0"], ["--device", "tpu"], ["--max-megabytes", "0"]):
        result = CliRunner().invoke(command, ["model.onnx", *wrong])
        assert result.exit_code == 2
        assert wrong[0] in result.output


def test_the_guard_keeps_no_list_without_end() -> None:
    async def app(*_: object) -> None: ...

    guard = Guard(app)
    for number in range(1000):
        guard._check({"type": "http", "method": "GET", "headers": [(b"host", f"10.0.0.1:{number}".encode())]})
    assert len(guard._known) <= 64


def test_neither_torch_nor_mlflow_nor_onnx_is_imported(models: dict[str, Path]) -> None:
    script = (
        "import sys, bench_export.commands.serve, bench_export.serving.server, bench_export.serving.app as app\n"
        "assert not {'fastapi', 'uvicorn', 'onnxruntime', 'pydantic'} & set(sys.modules)\n"
        "from pathlib import Path\n"
        "from bench_export.serving.server import Settings, open_batcher\n"
        f"batcher = open_batcher(Path({str(models['classes'])!r}), Settings(max_batch=2))\n"
        "app.build(batcher.predictor, batcher, limits=Settings().limits)\n"
        "assert not {'torch', 'mlflow', 'onnx'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
