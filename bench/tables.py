"""The tables of a recipe: every key with its type, default and meaning. recipes/README.md is generated from here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from bench.optimizer_tables import OPTIMIZERS, SCHEDULERS, Count, Fraction, Positive
from bench.schema import Table
from bench.search_tables import Search

__all__ = [
    "METRICS",
    "METRICS_OF",
    "OPTIMIZERS",
    "SCHEDULERS",
    "SECTIONS",
    "TRACKED",
    "AugmentKeys",
    "Compute",
    "Data",
    "DatasetKeys",
    "Export",
    "Gate",
    "Init",
    "ModelKeys",
    "Top",
    "Train",
    "larger_is_better",
]


class Data(Table):
    """How images become the model's input, and how a set is split."""

    size: Count | tuple[Count, Count] = Field(64, description="image size in pixels: one side, or [height, width]")
    resize: Literal["squash", "crop", "pad"] = Field(
        "squash",
        description="squash: both sides to size; crop: shorter side, then the centre; pad: longer side, black bars",
    )
    filter: Literal["bilinear", "bicubic", "lanczos", "box", "nearest"] = Field(
        "bilinear", description="resampling filter, antialiased (Pillow)"
    )
    channels: Literal["auto", 1, 3] = Field("auto", description="1 grey, 3 colour, auto: what the dataset has")
    normalize: Literal["auto", "weights", "data", "none", "given"] = Field(
        "auto",
        description="mean and std of the input: those of the weights, of the training images, none, or given by "
        "mean and std; auto: of the weights where some are loaded, otherwise of the data",
    )
    mean: tuple[float, ...] | None = Field(None, description='channel means in 0..1, with normalize = "given"')
    std: tuple[Positive, ...] | None = Field(None, description='channel deviations, with normalize = "given"')
    validation: Fraction = Field(
        0.1,
        description="share of the training images held out where the dataset has no validation split; 0: none",
    )
    test: Fraction = Field(0.2, description="share held out for the test where the dataset has no test split")
    split_seed: Annotated[int, Field(ge=0)] = Field(0, description="seed of the splits, the same for every run seed")
    bad_images: Literal["error", "skip"] = Field(
        "error",
        description="what to do about images that cannot be decoded; skipped ones are counted and listed",
    )
    max_megapixels: Positive = Field(100.0, description="larger images count as bad (a decompression bomb)")
    memory_gb: Annotated[float, Field(ge=0)] | Literal["auto"] = Field(
        "auto", description="sets larger than this are streamed from disk; auto: half of the free memory"
    )
    copies: Count = Field(
        1,
        description="above 1, augmentation is offline: the training set is each image as it is and copies - 1 times "
        "augmented, drawn once and kept in memory; 1: a new draw in every epoch",
    )

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return (self.size, self.size) if isinstance(self.size, int) else self.size


class Train(Table):
    """The training loop."""

    epochs: Annotated[int, Field(ge=0)] = Field(
        10, description="passes over the training images; 0: only what the model computes from them by itself"
    )
    batch_size: Count = Field(64, description="images a step")
    loss: Literal["cross_entropy", "nll", "bce", "contrastive"] = Field(
        "cross_entropy",
        description="bce: sigmoid outputs, one for two classes or one a class; contrastive: distances of pairs; "
        "pairs need bce or contrastive",
    )
    margin: Positive = Field(1.0, description="with contrastive, how far apart a different pair must be")
    threshold: Fraction | Literal["auto"] = Field(
        "auto",
        description="score from which on a pair is the same; auto: the best one on the validation pairs, or on the "
        "training pairs where there are none",
    )
    label_smoothing: Fraction = Field(0.0, description="share of the target spread over all classes")
    class_weights: Literal["none", "balanced"] | tuple[Positive, ...] = Field(
        "none", description="weight of each class in the loss; balanced: inverse to its frequency"
    )
    accumulate: Count = Field(1, description="batches whose gradients are added up before a step")
    clip_norm: Annotated[float, Field(ge=0)] = Field(0.0, description="largest norm of the gradient; 0: no clipping")
    ema: Fraction = Field(0.0, description="decay of the weights' exponential moving average; 0: none")
    monitor: str = Field("val_accuracy", description="tracked metric that chooses the best epoch and stops early")
    keep: Literal["best", "last"] = Field("best", description="which epoch's weights are the result")
    patience: Annotated[int, Field(ge=0)] = Field(
        0, description="stop after this many epochs without a better monitor; 0: never"
    )
    cache_features: Literal["auto", "on", "off"] = Field(
        "auto",
        description="compute a frozen backbone's features once; auto: where the backbone is wholly frozen",
    )
    views: Count = Field(4, description="augmented views of each image in the feature cache")


class Init(Table):
    """How layers start: normal(mean, std), uniform(low, high), constant(value), zeros, ones, xavier_uniform,
    xavier_normal, kaiming_uniform, kaiming_normal or orthogonal; by default as the layer itself does.
    """

    conv_weight: str = Field("", description='weights of convolutions: "normal(0, 0.01)"')
    conv_bias: str = Field("", description="their biases")
    linear_weight: str = Field("", description="weights of fully connected layers")
    linear_bias: str = Field("", description="their biases")


class Compute(Table):
    """The hardware and how it is used. auto: chosen by timing a few steps, and shown with the reason."""

    device: str = Field("auto", description="auto, cpu, cuda or cuda:N; auto: CUDA where there is one")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field("auto", description="fp16 needs CUDA")
    memory_format: Literal["auto", "contiguous", "channels_last"] = Field("auto", description="layout of the images")
    threads: Count | Literal["auto"] = Field("auto", description="CPU threads of a training step")
    compile: bool = Field(False, description="torch.compile: faster steps after a minute of compilation")
    deterministic: bool = Field(False, description="only deterministic kernels (CUDA; the CPU's always are)")


Share: TypeAlias = Annotated[float, Field(ge=0, le=1)]


class Gate(Table):
    """How far an exported file may be from the trained model, on the validation images (test images where a recipe has
    none held out).
    """

    fp32_agreement: Share = Field(1.0, description="share of images with the same answer; ties count as the same")
    fp32_max_difference: Positive = Field(1e-3, description="largest difference of a probability")
    fp16_agreement: Share = Field(0.995, description="share of images with the same answer")
    fp16_accuracy_loss: Annotated[float, Field(ge=0)] = Field(0.2, description="accuracy lost at most, in points")
    int8_accuracy_loss: Annotated[float, Field(ge=0)] = Field(0.5, description="accuracy lost at most, in points")
    batch_difference: Positive = Field(
        1e-3, description="largest difference of an image's answer in another batch size"
    )


class Export(Table):
    """What `bench export` goes by."""

    calibration_images: Count = Field(256, description="training images that the ranges of int8 are taken from")
    gate: Gate = Field(Gate(), description="the limits that a file must hold")  # type: ignore[call-arg]


#: The metrics of each task's evaluation, and what is tracked after every epoch.
METRICS_OF: Mapping[str, tuple[str, ...]] = {
    "classification": ("accuracy", "balanced_accuracy", "macro_f1", "auroc", "log_loss", "ece", "loss"),
    "verification": (
        *("accuracy", "auroc", "eer", "tar_at_far_0.01", "tar_at_far_0.001"),
        *("log_loss", "ece", "loss"),
    ),
}
METRICS = tuple(dict.fromkeys(name for names in METRICS_OF.values() for name in names))
TRACKED = ("train_loss", "train_accuracy", *(f"val_{name}" for name in METRICS))


def larger_is_better(metric: str) -> bool:
    """Which way a tracked metric improves: losses and errors fall, everything else rises."""
    return not metric.endswith(("loss", "ece", "eer"))


#: Sections of a recipe with fixed keys.
SECTIONS: Mapping[str, type[Table]] = {
    "data": Data,
    "init": Init,
    "train": Train,
    "compute": Compute,
    "export": Export,
    "search": Search,
}


class Top(Table):
    """The keys at the top of a recipe."""

    experiment: str = Field("", description="runs with the same experiment are compared; default: the file's name")
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field(
        (0,), min_length=1, description="one run for each; several give mean and interval"
    )


class DatasetKeys(Table):
    """The core's keys of [dataset]; the plugin's options stand beside them."""

    name: str = Field(min_length=1, description="a dataset plugin")
    root: str = Field(
        "",
        description="its folder, looked for here and below the folder that BENCH_DATA names; default: its name",
    )


class ModelKeys(Table):
    """The core's keys of [model]; the plugin's options stand beside them."""

    name: str = Field(min_length=1, description="a model plugin")
    weights: str = Field(
        "", description='a .safetensors file to start from, or a recorded run: "runs:/RUN"; the head may differ'
    )
    freeze: tuple[str, ...] = Field((), description='parts that are not trained, by module name: ["features"]')


class AugmentKeys(Table):
    """The core's key of an [[augment]] table; the plugin's options stand beside it."""

    name: str = Field(min_length=1, description="an augmentation plugin; they apply in the order of the file")
