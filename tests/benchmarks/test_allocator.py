"""What keeping freed memory is worth: the same training steps in two processes, with and without."""

from __future__ import annotations

import subprocess
import sys

import pytest
from side_by_side import compare

pytestmark = pytest.mark.benchmark

STEPS = """
import sys, time, torch, torchvision
from bench.stages.allocator import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
model = torchvision.models.mobilenet_v2(num_classes=10).to(memory_format=torch.channels_last)
images = torch.randn(32, 3, 128, 128).contiguous(memory_format=torch.channels_last)
durations = []
for _ in range(8):
    start = time.perf_counter()
    model(images).sum().backward()
    durations.append(time.perf_counter() - start)
print(sorted(durations[2:])[3])
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's malloc only")
def test_steps_are_faster_when_freed_memory_is_kept() -> None:
    def step(choice: str) -> float:
        command = [sys.executable, "-c", STEPS, choice]
        return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    ratios = compare(
        "MobileNetV2 step: glibc's default over kept memory", lambda: step("keep"), lambda: step("default")
    )
    assert ratios.median > 1
