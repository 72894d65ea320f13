"""`bench run` as a whole process against a plain script: DataLoader, PIL transforms, torch's defaults."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest
from side_by_side import compare, seconds_of, table

pytestmark = [pytest.mark.benchmark, pytest.mark.real_data]

RECIPE = """
[dataset]
name = "image_folder"
[data]
size = 64
test = 0.0
[model]
name = "mobilenet_v2"
[[augment]]
name = "horizontal_flip"
[[augment]]
name = "affine"
[train]
epochs = 1
batch_size = 64
keep = "last"
[optimizer]
name = "adamw"
lr = 1e-3
[compute]
precision = "fp32"
"""

#: The same job as people write it.
SCRIPT = """
import sys, torch
from torch.utils.data import DataLoader
from torchvision import datasets, models, transforms as T
root, model, epochs = sys.argv[1], sys.argv[2], int(sys.argv[3])
norm = [T.ToTensor(), T.Normalize([0.5] * 3, [0.25] * 3)]
train = datasets.ImageFolder(root + "/train", T.Compose([T.Resize((64, 64)), T.RandomHorizontalFlip(),
    T.RandomAffine(10, translate=(0.1, 0.1), scale=(0.9, 1.1)), *norm]))
val = datasets.ImageFolder(root + "/val", T.Compose([T.Resize((64, 64)), *norm]))
if model == "mobilenet_v2":
    net = models.mobilenet_v2(num_classes=len(train.classes))
else:
    nn = torch.nn
    conv = lambda i, o, p: [nn.Conv2d(i, o, 3), nn.BatchNorm2d(o), nn.ReLU(), nn.MaxPool2d(p)]
    net = nn.Sequential(*conv(3, 12, 2), *conv(12, 12, 2), *conv(12, 42, 3), nn.Flatten(), nn.Linear(672, 200), nn.ReLU(),
        nn.Linear(200, 100), nn.ReLU(), nn.Linear(100, len(train.classes)))
opt = torch.optim.AdamW(net.parameters(), 1e-3)
loss = torch.nn.CrossEntropyLoss()
for _ in range(epochs):
    net.train()
    for x, y in DataLoader(train, 64, shuffle=True, num_workers=2):
        opt.zero_grad(); loss(net(x), y).backward(); opt.step()
    net.eval()
    with torch.no_grad():
        good = sum((net(x).argmax(1) == y).sum().item() for x, y in DataLoader(val, 64, num_workers=2))
    print(good / len(val))
"""
CNN = "model={name='cnn', channels=[12,12,42], convs_per_block=1, pools=[2,2,3], padding=false, bias=true, global_pool=false, hidden=[200,100]}"


@pytest.fixture(scope="module")
def signs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The traffic signs as one folder a class: 13,070 images for training, 3,000 for validation."""
    source = Path(os.environ["BENCH_DATA"]) / "gtsrb"
    root = tmp_path_factory.mktemp("signs")
    (root / "train").symlink_to(source / "GTSRB" / "Training")
    with (source / "GT-final_test.csv").open() as file:
        for row in csv.DictReader(file, delimiter=";"):
            image = source / "GTSRB" / "Final_Test" / "Images" / row["Filename"]
            if image.is_file():
                folder = root / "val" / f"{int(row['ClassId']):05d}"
                folder.mkdir(parents=True, exist_ok=True)
                (folder / row["Filename"]).symlink_to(image)
    return root


@pytest.mark.parametrize(("model", "changes", "least"), [("mobilenet_v2", [], 1.5), ("cnn", [CNN], 1.8)])
def test_one_epoch_of_traffic_signs(model: str, changes: list[str], least: float, signs: Path, tmp_path: Path) -> None:
    """From the start of Python to the recorded result, nothing cached beforehand on our side."""
    (tmp_path / "signs.toml").write_text(RECIPE)
    (tmp_path / "script.py").write_text(SCRIPT)
    counter = iter(range(100))

    def ours() -> float:
        environment = {**os.environ, "BENCH_CACHE": str(tmp_path / f"cache{next(counter)}")}
        sets = [f"dataset.root={signs}", *changes]
        command = [sys.executable, "-m", "bench", "run", "signs.toml", *(part for s in sets for part in ("--set", s))]
        return seconds_of(
            lambda: subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True)
        )

    def plain() -> float:
        command = [sys.executable, "script.py", str(signs), model, "1"]
        return seconds_of(lambda: subprocess.run(command, cwd=tmp_path, check=True, capture_output=True))

    ratios = compare(f"{model}, whole process: plain script over bench run", ours, plain, rounds=3, warm_up=0)
    table({"bench run, the last of them": ours()}, "s")
    assert ratios.median >= least
