"""bench serve at eight concurrent clients against the same work offline: pytest -m benchmark -s tests/benchmarks/test_serving.py.

Offline is what `predict` reaches in a process of its own on the same images, decoding and session together: the better
of one session thread and onnxruntime's choice. Served is what eight clients, each with one connection and one image a
request, reach together; they run on the same cores, so what they take of them is printed too. Both in turns.
"""

from __future__ import annotations

import io
import json
import resource
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

ROUNDS = 5
REQUESTS = 4000  # a round: 20,000 in all
CLIENTS = 8
SHARE = 0.8
SIZE = 64


@pytest.mark.benchmark
def test_eight_clients_get_most_of_what_the_machine_can_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, folder = mobilenet(tmp_path / "mobilenet.onnx"), photographs(tmp_path / "photographs")
    command = "import sys; from bench_export.commands.serve import serve; serve(sys.argv[1:])"
    with subprocess.Popen(
        [sys.executable, "-c", command, str(model), "--port", "0"], stdout=subprocess.PIPE, text=True
    ) as program:
        assert program.stdout is not None
        said = next(line for line in program.stdout if " is at http" in line)
        port, batch = said.partition(" (")[0].rpartition(":")[2], said.partition("up to ")[2].split()[0]
        try:
            rounds = [
                (measured("offline", model, folder, batch), measured("clients", port, folder, REQUESTS))
                for _ in range(ROUNDS)
            ]
        finally:
            program.send_signal(signal.SIGINT)
    shares = [served["per_second"] / max(offline.values()) for offline, served in rounds]
    with capsys.disabled():
        sys.stdout.write(f"\nMobileNetV2 at {SIZE} px, JPEGs of 250 x 250 px, batches of up to {batch}, n={ROUNDS}\n")
        for offline, served in rounds:
            figures = ", ".join(f"{name} {value:,.0f}" for name, value in offline.items())
            sys.stdout.write(
                f"  offline img/s: {figures}; served {served['per_second']:,.0f}/s, p50 {served['p50_ms']:.1f} ms,"
                f" p99 {served['p99_ms']:.1f} ms, errors {served['errors']}, clients' share of the cores"
                f" {served['cpu_share']:.1%}\n"
            )
        spread = f"{min(shares):.2f} to {max(shares):.2f}"
        sys.stdout.write(f"  served / offline: {statistics.median(shares):.2f} ({spread}), at least {SHARE}\n")
    assert sum(served["requests"] for _offline, served in rounds) >= 20_000
    assert sum(served["errors"] for _offline, served in rounds) == 0
    assert statistics.median(shares) >= SHARE


def measured(*arguments: Any) -> dict[str, float]:
    """What one of the two sides below measures, in a process of its own."""
    command = [sys.executable, __file__, *map(str, arguments)]
    return dict(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))


def mobilenet(path: Path) -> Path:
    """An exported MobileNetV2; its weights do not matter."""
    import onnx
    import torch
    import torchvision

    from bench.kinds import DataSpec
    from bench_export.card import Card, Preprocessing, write_card
    from bench_export.conversion.core import convert_core
    from bench_export.conversion.join import join

    torch.manual_seed(0)
    classes = tuple(f"class {number}" for number in range(10))
    network = torchvision.models.mobilenet_v2(num_classes=len(classes)).eval()
    how = Preprocessing((SIZE, SIZE), 3, "squash", "bilinear", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    core = convert_core(network, DataSpec("classification", classes, 3, (SIZE, SIZE)))
    whole = join(
        core.proto,
        preprocessing=how,
        task="classification",
        num_classes=len(classes),
        loss="cross_entropy",
        threshold=None,
    )
    onnx.save(whole, path)
    write_card(path, Card("classification", classes, how))
    return path


def photographs(folder: Path, count: int = 200) -> Path:
    """JPEGs of about 20 kB: waves of light with the noise of a sensor."""
    folder.mkdir()
    random = np.random.default_rng(0)
    rows, columns = np.mgrid[0:250, 0:250]
    for number in range(count):
        phases = random.uniform(0, 6, (3, 3))
        waves = [128 + 60 * np.sin(columns / (10 + 5 * a) + b) + 50 * np.cos(rows / (15 + 5 * c)) for a, b, c in phases]
        pixels = np.stack(waves, axis=-1) + random.normal(0, 8, (250, 250, 3))
        memory = io.BytesIO()
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(memory, "JPEG", quality=90)
        (folder / f"{number:03}.jpg").write_bytes(memory.getvalue())
    return folder


def offline(model: str, folder: str, batch: str) -> dict[str, float]:
    """Images a second of `predict`, for each choice of threads."""
    from bench_export import load

    images = [file.read_bytes() for file in sorted(Path(folder).iterdir())]
    figures = {}
    for name, options in (("1 thread", {"threads": 1}), ("all threads", {})):
        predictor = load(model, **options)
        predictor.predict(images, batch_size=int(batch))
        start = time.perf_counter()
        predictor.predict(images * 10, batch_size=int(batch))
        figures[name] = 10 * len(images) / (time.perf_counter() - start)
    return figures


def clients(port: str, folder: str, count: str) -> dict[str, float]:
    """Eight threads, each with a connection that is kept, and the next request as soon as the last one is answered."""
    images = [file.read_bytes() for file in sorted(Path(folder).iterdir())]
    head = f"POST /predict HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: image/jpeg\r\nContent-Length: "
    requests = [f"{head}{len(image)}\r\n\r\n".encode() + image for image in images]
    times: list[float] = []
    errors: list[bytes] = []

    def ask(first: int, number: int) -> None:
        with socket.create_connection(("127.0.0.1", int(port))) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for request in (requests[(first + CLIENTS * index) % len(requests)] for index in range(number)):
                start = time.perf_counter()
                connection.sendall(request)
                answer = whole_answer(connection)
                times.append(time.perf_counter() - start)
                if not (answer.startswith(b"HTTP/1.1 200") and answer.endswith(b"}}")):
                    errors.append(answer)

    def all_ask(number: int) -> float:
        threads = [threading.Thread(target=ask, args=(first, number)) for first in range(CLIENTS)]
        start = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return time.perf_counter() - start

    all_ask(20)
    times.clear()
    before = resource.getrusage(resource.RUSAGE_SELF)
    seconds = all_ask(int(count) // CLIENTS)
    after = resource.getrusage(resource.RUSAGE_SELF)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    p50, p99 = np.percentile(times, [50, 99]) * 1e3
    return {
        "requests": len(times),
        "errors": len(errors),
        "per_second": len(times) / seconds,
        "p50_ms": p50,
        "p99_ms": p99,
        "cpu_share": used / seconds / 2,
    }


def whole_answer(connection: socket.socket) -> bytes:
    """One response of a known length."""
    answer = connection.recv(65536)
    while b"\r\n\r\n" not in answer:
        answer += connection.recv(65536)
    head, _, body = answer.partition(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    while len(body) < length:
        body += connection.recv(65536)
    return head + b"\r\n\r\n" + body


if __name__ == "__main__":
    side = {"offline": offline, "clients": clients}[sys.argv[1]]
    sys.stdout.write(json.dumps(side(*sys.argv[2:])))
