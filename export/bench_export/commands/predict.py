"""bench predict: what a model makes of images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

__all__ = ["predict"]


@click.command()
@click.argument("model", type=click.Path(path_type=Path), metavar="MODEL.onnx")
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option("--format", "form", type=click.Choice(["table", "csv", "json"]), help="Default: by --output, or table.")
@click.option("--top", type=click.IntRange(min=1), default=1, help="The K best classes of each image.", metavar="K")
@click.option("--probabilities", is_flag=True, help="The probabilities of all classes.")
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), help="Write into a file (.csv, .json).")
@click.option("--skip-bad", is_flag=True, help="Exit 0 although images cannot be used.")
@click.option("--batch-size", type=click.IntRange(min=1), default=32, show_default=True)
@click.option("--threads", type=click.IntRange(1, 1024), help="Threads of a model's operators; default: its tuning.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option("--labels", metavar="FILE|a,b,c", help="Class names, for a file of another program.")
@click.option("--preprocess", metavar="FILE|KEYS", help="Its preprocessing: a TOML file, or the keys below.")
def predict(model: Path, paths: tuple[str, ...], **options: Any) -> None:
    """Predict the classes of images, or which pairs show the same.

    PATH is an image, a folder (read at any depth), a quoted glob, a list (.txt, .csv or .tsv; its paths start from its
    folder), or - for a list on stdin: one path a line.

    A model of pairs takes its paths two by two; where one of the two is a folder, the other one is compared with each
    of its images. Its lists have two columns: first.jpg,second.jpg.

    \b
    bench predict model.onnx photos/ --top 3
    bench predict model.onnx 'photos/*.jpg' --output answers.csv --probabilities
    find photos -name '*.jpg' | bench predict model.onnx - --format json
    bench predict faces.onnx a.jpg b.jpg
    bench predict faces.onnx me.jpg album/

    Images that cannot be used are listed at the end, with exit code 1.

    A file of another program says neither its classes nor its preprocessing: --labels and --preprocess do. The keys are
    size, resize, filter, scale, mean, std, channels, order, layout and output:

    \b
    bench predict resnet.onnx a.jpg --labels imagenet.txt --preprocess \\
      "size=224 resize=crop filter=bicubic mean=0.485,0.456,0.406 \\
       std=0.229,0.224,0.225 output=logits"
    """
    from bench_export.prediction.command import Options, run

    run(model, paths, Options(**options))
