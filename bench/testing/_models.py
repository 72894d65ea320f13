"""Checks for models: a module that maps images, or pairs of them, to logits, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from bench.errors import Unsupported
from bench.testing._builds import build, builds, first_build, num_outputs, random_inputs, run
from bench.testing._subject import CheckFailed, Subject, expect, offline, seeded

if TYPE_CHECKING:
    import torch

    from bench.kinds import DataSpec

__all__ = ["CHECKS"]

#: What another order of additions may change in float32, as a share of the largest output.
_TOLERANCE = 1e-3


def builds_offline(subject: Subject) -> None:
    """With its default options it is built without the network, for colour and grey and for sizes of any ratio."""
    with offline() as asked:
        try:
            list(builds(subject))
        except Exception as error:
            expect(not asked, f"it asked the network for {asked[:1]} and failed: {error}; download only on an option")
            raise
    expect(not asked, f"it asked the network for {', '.join(asked[:3])}; download only where an option says so")


def output_shape(subject: Subject) -> None:
    """Images become finite float logits N,num_classes, pairs N,1, in training and in evaluation."""
    for spec, model in builds(subject):
        for mode in (True, False):
            _check_logits(run(model.train(mode), random_inputs(spec)), spec, "training" if mode else "evaluation")


def single_image_in_eval(subject: Subject) -> None:
    """In evaluation it takes a single image or pair."""
    for spec, model in builds(subject):
        _check_logits(run(model.eval(), random_inputs(spec, count=1)), spec, "evaluation of a single image")


def gradients_reach_all(subject: Subject) -> None:
    """Training gives every trainable parameter a finite gradient."""
    spec, model = first_build(subject)
    _loss_of(model.train(), spec).backward()  # type: ignore[no-untyped-call]  # torch left it untyped
    trainable = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    expect(bool(trainable), "it has no trainable parameter")
    lost = [name for name, parameter in trainable.items() if parameter.grad is None]
    expect(not lost, f"no gradient reaches {', '.join(lost[:5])}: remove what is not used, or what detaches it")
    wild = [name for name, p in trainable.items() if p.grad is not None and not p.grad.isfinite().all()]
    expect(not wild, f"the gradient of {', '.join(wild[:5])} is not finite")


def images_do_not_mix(subject: Subject) -> None:
    """In evaluation the logits of an image or pair do not depend on the others of the batch."""
    import torch

    spec, model = first_build(subject)
    inputs = random_inputs(spec)
    others = [
        torch.cat((images[:1], 3 * other[1:] + 1))
        for images, other in zip(inputs, random_inputs(spec, seed=1), strict=True)
    ]
    before, after = run(model.eval(), inputs), run(model, others)
    _expect_close(
        after[:1], before[:1], "in evaluation an image's logits change with its neighbours; use running statistics"
    )


def eval_is_deterministic(subject: Subject) -> None:
    """In evaluation the same images give the same logits, whatever the random state."""
    spec, model = first_build(subject)
    model.eval()
    first, second = run(model, random_inputs(spec), seed=0), run(model, random_inputs(spec), seed=1)
    _expect_close(second, first, "two evaluations of the same images differ; does a dropout stay on in eval()?")


def state_roundtrip(subject: Subject) -> None:
    """Its state_dict, through a .safetensors file, makes a second build give the same logits."""
    from safetensors.torch import load, save

    spec, model = first_build(subject)
    run(model.train(), random_inputs(spec))  # so that statistics are no longer those of a fresh build
    state = {name: tensor.detach().contiguous().clone() for name, tensor in model.state_dict().items()}
    twin = build(subject, spec, seed=1)
    twin.load_state_dict(load(save(state)))
    message = (
        "a second build with the same state_dict gives other logits; register what is missing as parameter or buffer"
    )
    _expect_close(run(twin.eval(), random_inputs(spec)), run(model.eval(), random_inputs(spec)), message)


def seeded_build(subject: Subject) -> None:
    """The same torch.manual_seed gives the same weights."""
    spec, model = next(builds(subject))
    twin = build(subject, spec)
    theirs = twin.state_dict()
    other = [n for n, tensor in model.state_dict().items() if n not in theirs or not tensor.equal(theirs[n])]
    expect(not other, f"two builds under one seed differ in {', '.join(other[:5])}; draw from torch's global generator")


def features_and_head(subject: Subject) -> None:
    """Where it has forward_features and forward_head, one after the other gives what forward gives."""
    import torch

    spec, model = first_build(subject)
    features, head = (getattr(model, name, None) for name in ("forward_features", "forward_head"))
    if not (callable(features) and callable(head)):
        raise Unsupported("it has no forward_features and forward_head, which would let a frozen backbone's be cached")
    model.eval()
    with torch.no_grad():
        parts = head(*map(features, random_inputs(spec)))
    whole = "forward_head(forward_features(images)) is not forward(images)"
    if spec.task == "verification":
        whole = "forward_head(features of the first, features of the second) is not forward(first, second)"
    _expect_close(parts, run(model, random_inputs(spec)), whole)


def pairs_are_symmetric(subject: Subject) -> None:
    """Where it compares pairs, the order of the two images does not matter."""
    spec, model = first_build(subject)
    if spec.task != "verification":
        return
    first, second = random_inputs(spec)
    forth, back = run(model.eval(), (first, second)), run(model, (second, first))
    _expect_close(
        back, forth, "forward(second, first) is not forward(first, second); compare with a symmetric distance"
    )


def input_statistics_valid(subject: Subject) -> None:
    """Where it has pretrained_cfg, mean and std are one a channel (or three), mean in 0..1, std positive."""
    for spec, model in builds(subject):
        told: Any = getattr(model, "pretrained_cfg", None) or {}
        mean, std = told.get("mean") or (), told.get("std") or ()
        expect(len(mean) == len(std), f"pretrained_cfg has {len(mean)} values in mean, but {len(std)} in std")
        expect(len(mean) in {0, spec.channels, 3}, f"pretrained_cfg has {len(mean)} means for {spec.channels} channels")
        expect(
            all(0 <= value <= 1 for value in mean) and all(0 < value <= 1 for value in std),
            f"pretrained_cfg: mean {mean} or std {std} is not on the scale 0 black to 1 white",
        )


def leaves_input(subject: Subject) -> None:
    """It does not write into the images that it is given."""
    spec, model = first_build(subject)
    for mode in (True, False):
        inputs = random_inputs(spec)
        run(model.train(mode), inputs)
        kept = all(given.equal(fresh) for given, fresh in zip(inputs, random_inputs(spec), strict=True))
        expect(kept, "it changed its input; the first operation must not be an in-place one")


def channels_last(subject: Subject) -> None:
    """It takes images in the memory format channels_last, with the same logits."""
    import torch

    spec, model = first_build(subject)
    expected = run(model.eval(), random_inputs(spec))
    model.to(memory_format=torch.channels_last)
    inputs = [images.contiguous(memory_format=torch.channels_last) for images in random_inputs(spec)]
    try:
        logits = run(model, inputs)
    except RuntimeError as error:
        raise CheckFailed(f"it fails on channels_last images, use reshape or flatten for view: {error}") from error
    _expect_close(logits, expected, "channels_last images give other logits; do not rely on strides")


def _loss_of(model: torch.nn.Module, spec: DataSpec) -> torch.Tensor:
    """A training step's loss. One of the pairs is an image with itself, where a distance may have no gradient."""
    import torch

    inputs = random_inputs(spec)
    if spec.task == "verification":
        inputs[1][0] = inputs[0][0]
    labels = torch.arange(4) % spec.num_classes
    with seeded(0):
        outputs = model(*inputs)
    if spec.task == "verification":
        return torch.nn.functional.binary_cross_entropy_with_logits(outputs, labels[:, None].float())
    return torch.nn.functional.cross_entropy(outputs, labels)


def _check_logits(logits: Any, spec: DataSpec, when: str) -> None:
    import torch

    expect(isinstance(logits, torch.Tensor), f"in {when} it returns {type(logits).__name__}, not a tensor of logits")
    shape = tuple(logits.shape)
    expect(
        shape[1:] == (num_outputs(spec),) and logits.is_floating_point(),
        f"in {when} it returns {logits.dtype} {shape}, not floats N,{num_outputs(spec)}: build it for "
        + ("one value a pair" if spec.task == "verification" else "spec.num_classes"),
    )
    expect(bool(logits.isfinite().all()), f"in {when} its logits are not finite")


def _expect_close(given: torch.Tensor, expected: torch.Tensor, message: str) -> None:
    expect(given.shape == expected.shape, f"{message} (shapes {tuple(given.shape)} and {tuple(expected.shape)})")
    difference = float((given - expected).abs().max())
    scale = max(float(expected.abs().max()), float(given.abs().max()), 1e-6)
    expect(difference <= _TOLERANCE * scale, f"{message} (largest difference {difference:.3g} of {scale:.3g})")


CHECKS: tuple[Callable[[Subject], None], ...] = (
    builds_offline,
    output_shape,
    single_image_in_eval,
    gradients_reach_all,
    images_do_not_mix,
    eval_is_deterministic,
    state_roundtrip,
    seeded_build,
    features_and_head,
    pairs_are_symmetric,
    input_statistics_valid,
    leaves_input,
    channels_last,
)
