"""The augmentations: the contract that all of them keep, and each against an independent reference."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from bench.registry import installed
from bench.schema import options_model, validate
from bench_plugins.augmentations import _batch, _boxes, _tone, trivial_augment
from bench_plugins.augmentations._operations import Operation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bench.kinds import Augmentation

NAMES = sorted(installed("augmentations"))
BILINEAR = v2.InterpolationMode.BILINEAR
#: Options with which every image is changed, in the ways that the defaults leave out.
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    *[(name, {}) for name in NAMES],
    ("affine", {"padding_mode": "symmetric", "translate": (0.5, 0.0), "shear": 30.0}),
    ("affine", {"fill": 0.7, "scale": (0.3, 3.0)}),
    ("color_jitter", {"hue": 0.5, "brightness": 1.0, "contrast": (0.0, 3.0), "saturation": (0.0, 3.0)}),
    ("crop", {"method": "padded", "padding": 40, "padding_mode": "edge"}),
    ("crop", {"method": "padded", "fill": 0.5}),
    ("gaussian_blur", {"kernel_size": 3}),
    ("gaussian_noise", {"std": 3.0}),
    ("mixup", {"alpha": 0.01}),
    ("random_erasing", {"value": "random"}),
    ("trivial_augment", {"padding_mode": "edge"}),
]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def load(name: str, **options: Any) -> Augmentation:
    """The augmentation, always applied unless `p` says otherwise, after its options have passed its schema."""
    factory = installed("augmentations")[name][0].load()
    options = {"p": 1.0, **options}
    values, problems = validate(options_model("augmentations", factory), options, name)
    assert not problems
    return factory(**values)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch(
    count: int = 6, channels: int = 3, height: int = 20, width: int = 28, *, classes: int = 5
) -> tuple[torch.Tensor, torch.Tensor]:
    """Smooth 8-bit images in 0..1, all different, with one-hot targets."""
    noise = torch.rand(count, channels, 5, 7, generator=seeded(1))
    images = torch.nn.functional.interpolate(noise, (height, width), mode="bilinear")
    targets = torch.eye(classes)[torch.arange(count) % classes]
    return images.mul(255).round() / 255, targets


def same_image(count: int = 200, **shape: int) -> tuple[torch.Tensor, torch.Tensor]:
    images, targets = batch(1, **shape)
    return images.repeat(count, 1, 1, 1), targets.repeat(count, 1)


def bytes_of(image: torch.Tensor) -> torch.Tensor:
    return image.mul(255).round().to(torch.uint8)


# The contract


@pytest.mark.parametrize(("name", "options"), VARIANTS, ids=str)
@pytest.mark.parametrize(("count", "channels", "height", "width"), [(6, 3, 20, 28), (1, 1, 8, 8), (5, 1, 33, 17)])
def test_shapes_ranges_and_inputs_are_kept(
    name: str, options: dict[str, Any], count: int, channels: int, height: int, width: int
) -> None:
    images, targets = batch(count, channels, height, width)
    images_before, targets_before = images.clone(), targets.clone()
    for seed in range(4):
        out, out_targets = load(name, **options)(images, targets, seeded(seed))
        assert out.shape == images.shape
        assert out.dtype == torch.float32
        assert out.isfinite().all()
        assert out.min() >= 0
        assert out.max() <= 1
        assert out_targets.dtype == torch.float32
        torch.testing.assert_close(out_targets.sum(dim=1), torch.ones(count))
        assert torch.equal(images, images_before)
        assert torch.equal(targets, targets_before)
        if name not in {"mixup", "cutmix"}:
            assert torch.equal(out_targets, targets)


@pytest.mark.parametrize(("name", "options"), VARIANTS, ids=str)
def test_same_generator_state_same_result_and_no_other_randomness(name: str, options: dict[str, Any]) -> None:
    images, targets = batch()
    augment = load(name, **options)
    state = torch.get_rng_state()
    first = augment(images, targets, seeded())
    torch.manual_seed(99)
    second = augment(images, targets, seeded())
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
    torch.set_rng_state(state)
    augment(images, targets, seeded())
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(("name", "options"), VARIANTS, ids=str)
def test_probability_zero_changes_no_bit(name: str, options: dict[str, Any]) -> None:
    images, targets = torch.rand(8, 3, 13, 9), torch.eye(8)
    out, out_targets = load(name, **{**options, "p": 0.0})(images, targets, seeded())
    assert torch.equal(out, images)
    assert torch.equal(out_targets, targets)


@pytest.mark.parametrize(("name", "options"), VARIANTS, ids=str)
def test_channels_last_gives_the_same(name: str, options: dict[str, Any]) -> None:
    images, targets = batch()
    augment = load(name, **options)
    expected, _ = augment(images, targets, seeded())
    strided, _ = augment(images.contiguous(memory_format=torch.channels_last), targets, seeded())
    torch.testing.assert_close(strided, expected, atol=2e-6, rtol=0)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in {"mixup", "cutmix"}])
def test_every_image_has_its_own_draw(name: str) -> None:
    images, targets = same_image(channels=3)
    out, _ = load(name, p=0.5)(images, targets, seeded())
    changed = (out != images).flatten(1).any(dim=1)
    assert 0.25 < changed.float().mean() < 0.65  # fewer than p where a draw may be the identity
    distinct = len(torch.unique(out[changed].flatten(1), dim=0))
    assert distinct == 1 if name == "horizontal_flip" else distinct > 0.5 * changed.sum()


@pytest.mark.parametrize("name", NAMES)
def test_neighbours_are_chosen_independently(name: str) -> None:
    images = torch.rand(600, 1, 6, 7, generator=seeded(3))
    out, _ = load(name, p=0.5)(images, torch.eye(2)[torch.arange(600) % 2], seeded())
    changed = (out != images).flatten(1).any(dim=1).double()
    correlation = torch.corrcoef(torch.stack((changed[:-1], changed[1:])))[0, 1]
    assert abs(correlation) < 4 / math.sqrt(600)


@pytest.mark.parametrize("name", NAMES)
def test_summary_is_short_and_ends_with_a_full_stop(name: str) -> None:
    summary = installed("augmentations")[name][0].summary()
    assert 10 < len(summary) <= 70
    assert summary.endswith(".")


@pytest.mark.parametrize(
    ("name", "option", "wrong"),
    [
        ("affine", "p", 1.5),
        ("affine", "scale", [1.2, 0.8]),
        ("affine", "scale", [0.0, 1.0]),
        ("affine", "translate", 2.0),
        ("affine", "padding_mode", "zeros"),
        ("color_jitter", "hue", 0.6),
        ("color_jitter", "brightness", [-1.0, 1.0]),
        ("crop", "scale", [0.5, 2.0]),
        ("crop", "padding", -1),
        ("cutmix", "alpha", 0.0),
        ("gaussian_blur", "sigma", [0.0, 1.0]),
        ("gaussian_noise", "std", -0.1),
        ("random_erasing", "value", "noise"),
        ("rotation", "degrees", [10.0, -10.0]),
        ("trivial_augment", "fill", 255.0),
    ],
)
def test_a_wrong_option_is_refused(name: str, option: str, wrong: Any) -> None:
    model = options_model("augmentations", installed("augmentations")[name][0].load())
    _, problems = validate(model, {option: wrong}, name)
    assert len(problems) == 1
    assert problems[0].startswith(f"{name}.{option}: ")


# Against references


def test_flip_is_torchvisions() -> None:
    images, targets = batch()
    out, _ = load("horizontal_flip")(images, targets, seeded())
    assert torch.equal(out, functional.horizontal_flip(images))


@pytest.mark.parametrize("degrees", [-50.0, 0.0, 17.0, 90.0])
@pytest.mark.parametrize(("height", "width"), [(20, 28), (31, 15)])
def test_rotation_is_torchvisions(degrees: float, height: int, width: int) -> None:
    images, targets = batch(height=height, width=width)
    out, _ = load("rotation", degrees=(degrees, degrees))(images, targets, seeded())
    torch.testing.assert_close(out, functional.rotate(images, degrees, BILINEAR), atol=1e-4, rtol=0)


@pytest.mark.parametrize("shear", [0.0, -25.0])
@pytest.mark.parametrize("scale", [0.7, 1.0, 1.6])
def test_affine_is_torchvisions(monkeypatch: pytest.MonkeyPatch, scale: float, shear: float) -> None:
    images, targets = batch()
    fixed = {"degrees": (33.0, 33.0), "scale": (scale, scale), "shear": (shear, shear), "translate": (0.25, 0.1)}
    expected = functional.affine(
        images, angle=33.0, translate=[7, 2], scale=scale, shear=[shear, 0.0], interpolation=BILINEAR
    )
    largest = lambda images, interval, generator: torch.full((len(images),), interval[1])  # noqa: E731, ARG005
    monkeypatch.setattr("bench_plugins.augmentations.affine.uniform", largest)
    out, _ = load("affine", **fixed)(images, targets, seeded())
    torch.testing.assert_close(out, expected, atol=1e-4, rtol=0)


def test_affine_fill_is_the_level_asked_for() -> None:
    images = torch.full((20, 3, 16, 16), 0.6)
    out, _ = load("affine", degrees=90.0, translate=0.5, fill=0.6)(images, torch.eye(20), seeded())
    torch.testing.assert_close(out, images)  # the border's blend of image and fill included
    out, _ = load("affine", degrees=45.0, fill=0.25)(images, torch.eye(20), seeded())
    assert out.min() == 0.25


def test_affine_draws_lie_in_their_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[torch.Tensor, ...]] = []

    def spy(angle: Any, translate: Any, scale: Any, shear: Any) -> torch.Tensor:
        seen.append((angle, *translate, scale, shear))
        return torch.eye(2, 3).expand(len(angle), 2, 3)

    monkeypatch.setattr("bench_plugins.augmentations.affine.affine_map", spy)
    images, targets = same_image(2000, channels=1, height=10, width=40)
    options = {"degrees": 20.0, "translate": (0.1, 0.5), "scale": (0.5, 0.8), "shear": (0.0, 9.0)}
    load("affine", **options)(images, targets, seeded())
    for drawn, (low, high) in zip(seen[0], [(-20, 20), (-4, 4), (-5, 5), (0.5, 0.8), (0, 9)], strict=True):
        assert low <= drawn.min() < low + 0.02 * (high - low)
        assert high - 0.02 * (high - low) < drawn.max() <= high
        assert abs(drawn.mean() - (low + high) / 2) < 0.03 * (high - low)


@pytest.mark.parametrize(
    ("option", "value", "reference"),
    [
        ("brightness", 1.7, functional.adjust_brightness),
        ("contrast", 0.3, functional.adjust_contrast),
        ("contrast", 2.5, functional.adjust_contrast),
        ("saturation", 0.0, functional.adjust_saturation),
        ("saturation", 2.0, functional.adjust_saturation),
        ("hue", 0.31, functional.adjust_hue),
        ("hue", -0.5, functional.adjust_hue),
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_color_jitter_is_torchvisions(
    option: str, value: float, reference: Callable[..., torch.Tensor], channels: int
) -> None:
    images, targets = batch(channels=channels)
    images[0] = 0.4  # grey: no hue
    images[1, :, :5] = 0.0
    still = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0}
    out, _ = load("color_jitter", **{**still, option: (value, value)})(images, targets, seeded())
    torch.testing.assert_close(out, reference(images, value), atol=1e-5, rtol=0)


@pytest.mark.parametrize("kernel_size", [1, 5, 13])
@pytest.mark.parametrize("sigma", [0.3, 2.0])
def test_blur_is_torchvisions(sigma: float, kernel_size: int) -> None:
    images, targets = batch()
    out, _ = load("gaussian_blur", sigma=(sigma, sigma), kernel_size=kernel_size)(images, targets, seeded())
    expected = functional.gaussian_blur(images, [kernel_size] * 2, [sigma, sigma])
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=0)


def test_blur_gives_every_image_its_own_sigma() -> None:
    images, targets = same_image(4)
    generator = seeded(5)
    torch.rand(4, generator=generator)  # which images are chosen
    sigmas = torch.rand(4, generator=generator) * 1.5 + 0.5
    out, _ = load("gaussian_blur", sigma=(0.5, 2.0))(images, targets, seeded(5))
    for image, sigma in zip(out, sigmas.tolist(), strict=True):
        expected = functional.gaussian_blur(images[0], [13, 13], [sigma, sigma])
        torch.testing.assert_close(image, expected, atol=1e-5, rtol=0)


def test_noise_has_the_deviation_asked_for() -> None:
    images = torch.full((16, 3, 32, 32), 0.5)
    out, _ = load("gaussian_noise", std=0.1)(images, torch.eye(16), seeded())
    assert abs(out.mean() - 0.5) < 0.002
    assert abs(out.std() - 0.1) < 0.002
    correlation = torch.corrcoef(out.flatten(1)) - torch.eye(16)
    assert correlation.abs().max() < 0.1


def test_resized_crop_is_torchvisions(monkeypatch: pytest.MonkeyPatch) -> None:
    images, targets = batch(12)
    seen: list[Any] = []
    _record_boxes(monkeypatch, seen)
    out, _ = load("crop", scale=(0.1, 0.9))(images, targets, seeded())
    boxes, fits = seen[0]
    assert fits.all()
    for index in range(12):
        box = [int(side[index]) for side in (boxes.top, boxes.left, boxes.height, boxes.width)]
        expected = functional.resized_crop(images[index], *box, [20, 28], BILINEAR)
        torch.testing.assert_close(out[index], expected, atol=1e-4, rtol=0)


def test_resized_crop_boxes_have_the_area_and_the_ratio(monkeypatch: pytest.MonkeyPatch) -> None:
    images, targets = same_image(3000, channels=1, height=100, width=100)
    seen: list[Any] = []
    _record_boxes(monkeypatch, seen)
    monkeypatch.setattr("bench_plugins.augmentations.crop.sample", lambda images, *_, **__: images)
    load("crop", scale=(0.1, 0.4), ratio=(0.5, 2.0))(images, targets, seeded())
    boxes, fits = seen[0]
    assert fits.all()
    area, ratio = boxes.height * boxes.width / 1e4, boxes.width / boxes.height
    assert 0.09 < area.min() < 0.105
    assert 0.395 < area.max() < 0.41
    assert abs(area.mean() - 0.25) < 0.01
    assert abs(ratio.log().mean()) < 0.03
    assert ratio.log().abs().max() < math.log(2) + 0.05
    for start, length in ((boxes.top, boxes.height), (boxes.left, boxes.width)):
        assert (start >= 0).all()
        assert (start + length <= 100).all()
        assert (start == 0).any()
        assert (start + length == 100).any()
        assert abs((start / (100 - length)).mean() - 0.5) < 0.02


def test_resized_crop_falls_back_to_the_centre() -> None:
    images, targets = batch(height=10, width=40)
    out, _ = load("crop", scale=(1.0, 1.0), ratio=(1.0, 1.0))(images, targets, seeded())
    expected = functional.resized_crop(images, 0, 15, 10, 10, [10, 40], BILINEAR)
    torch.testing.assert_close(out, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("padding_mode", "fill"), [("constant", 0.0), ("constant", 0.5), ("edge", 0), ("symmetric", 0)]
)
def test_padded_crop_is_torchvisions(padding_mode: str, fill: float) -> None:
    images, targets = same_image(400, channels=1, height=9, width=11)
    options = {"method": "padded", "padding": 2, "padding_mode": padding_mode, "fill": fill}
    out, _ = load("crop", **options)(images, targets, seeded())
    padded = functional.pad(images[0], [2, 2, 2, 2], fill=fill, padding_mode=padding_mode)
    windows = torch.stack([functional.crop(padded, i // 5, i % 5, 9, 11) for i in range(25)])
    difference = (out[:, None] - windows).abs().amax(dim=(2, 3, 4))
    assert difference.amin(dim=1).max() < 1e-6
    counts = torch.bincount(difference.argmin(dim=1), minlength=25)
    assert counts.min() > 3  # every one of the 25 positions, about 16 times each


@pytest.mark.parametrize("value", [0.0, 0.5, "random"])
def test_erasing_fills_boxes_of_the_area_asked_for(value: Any) -> None:
    images = torch.full((800, 3, 40, 50), 0.9)
    out, _ = load("random_erasing", scale=(0.1, 0.3), value=value)(images, torch.ones(800, 1), seeded())
    erased = (out != images).any(dim=1)
    area = erased.float().mean(dim=(1, 2))
    assert area.min() > 0.09
    assert area.max() < 0.31
    assert abs(area.mean() - 0.2) < 0.01
    corners = erased.any(dim=2).sum(dim=1) * erased.any(dim=1).sum(dim=1)
    assert torch.equal(erased.sum(dim=(1, 2)), corners)  # rectangles
    if value == "random":
        noise = out.permute(0, 2, 3, 1)[erased]
        assert abs(noise.mean() - 0.5) < 0.01
        assert abs(noise.std() - 1 / math.sqrt(12)) < 0.01
    else:
        assert (out.permute(0, 2, 3, 1)[erased] == value).all()


def test_cutout_is_an_erasing_of_a_fixed_square() -> None:
    images = torch.ones(50, 1, 40, 40)
    out, _ = load("random_erasing", scale=(0.25, 0.25), ratio=(1.0, 1.0))(images, torch.eye(50), seeded())
    assert (out == 0).sum(dim=(1, 2, 3)).eq(400).all()


def test_erasing_ratio_is_height_by_width() -> None:
    images = torch.ones(50, 1, 60, 60)
    out, _ = load("random_erasing", scale=(0.04, 0.04), ratio=(4.0, 4.0))(images, torch.eye(50), seeded())
    assert (out == 0).any(dim=3).sum(dim=(1, 2)).eq(24).all()
    assert (out == 0).any(dim=2).sum(dim=(1, 2)).eq(6).all()


def test_mixup_mixes_targets_as_it_mixes_pixels() -> None:
    count = 64
    levels = torch.arange(count) / (count - 1)
    images = levels[:, None, None, None].expand(count, 3, 6, 6).contiguous()
    out, targets = load("mixup", alpha=1.0)(images, torch.eye(count), seeded())
    torch.testing.assert_close(out.mean(dim=(1, 2, 3)), targets @ levels)
    assert ((targets > 0).sum(dim=1) <= 2).all()
    torch.testing.assert_close(targets.diagonal() + _others(targets), torch.ones(count))


def test_mixup_shares_follow_the_beta_distribution() -> None:
    for alpha in (0.2, 1.0, 5.0):
        share = _batch.beta(torch.empty(20000, 1), alpha, seeded())
        assert abs(share.mean() - 0.5) < 0.01
        assert abs(share.var() - 1 / (4 * (2 * alpha + 1))) < 0.005
    assert _batch.beta(torch.empty(20000, 1), 0.001, seeded()).isfinite().all()


def test_cutmix_targets_are_the_share_of_pixels_pasted() -> None:
    count = 200
    images = torch.arange(count)[:, None, None, None].expand(count, 1, 15, 22).float() / count
    out, targets = load("cutmix", alpha=1.0)(images, torch.eye(count), seeded())
    own = (out == images).float().mean(dim=(1, 2, 3))
    torch.testing.assert_close(targets.diagonal(), own)
    others = targets - torch.diag(targets.diagonal())
    pasted = out.masked_fill(out == images, 0).amax(dim=(1, 2, 3)).mul(count).round().long()
    mixed = own < 1
    assert torch.equal(others.argmax(dim=1)[mixed & (pasted > 0)], pasted[mixed & (pasted > 0)])
    assert 0.5 < own.mean() < 0.85  # half of it by Beta(1, 1), less what the border cuts off
    assert own.unique().numel() > 60


def test_mixing_draws_partners_and_shares_for_every_image() -> None:
    images, targets = batch(32, classes=32)
    for name in ("mixup", "cutmix"):
        _, mixed = load(name, alpha=1.0)(images, targets, seeded())
        partners = (mixed - torch.diag(mixed.diagonal())).argmax(dim=1)[mixed.diagonal() < 1]
        assert partners.unique().numel() > 20
        assert mixed.diagonal().unique().numel() > 20


# TrivialAugment: each operation at fixed strengths against torchvision on 8-bit images

REFERENCES: dict[Operation, Callable[[torch.Tensor, float], torch.Tensor]] = {
    Operation.IDENTITY: lambda image, _: image,
    Operation.BRIGHTNESS: lambda image, m: functional.adjust_brightness(image, 1 + 0.99 * m),
    Operation.CONTRAST: lambda image, m: functional.adjust_contrast(image, 1 + 0.99 * m),
    Operation.COLOR: lambda image, m: functional.adjust_saturation(image, 1 + 0.99 * m),
    Operation.SHARPNESS: lambda image, m: functional.adjust_sharpness(image, 1 + 0.99 * m),
    Operation.POSTERIZE: lambda image, m: functional.posterize(image, 8 - round(6 * abs(m))),
    Operation.SOLARIZE: lambda image, m: functional.solarize(image, 255 * (1 - abs(m))),
    Operation.AUTO_CONTRAST: lambda image, _: functional.autocontrast(image),
    Operation.EQUALIZE: lambda image, _: functional.equalize(image),
    Operation.SHEAR_X: lambda image, m: _shear(image, [math.degrees(math.atan(0.99 * m)), 0.0]),
    Operation.SHEAR_Y: lambda image, m: _shear(image, [0.0, math.degrees(math.atan(0.99 * m))]),
    Operation.TRANSLATE_X: lambda image, m: _translate(image, [int(32 * m), 0]),
    Operation.TRANSLATE_Y: lambda image, m: _translate(image, [0, int(32 * m)]),
    Operation.ROTATE: lambda image, m: functional.rotate(image, 135 * m, BILINEAR),
}


def _shear(image: torch.Tensor, shear: list[float]) -> torch.Tensor:
    return functional.affine(image, 0.0, [0, 0], 1.0, shear, interpolation=BILINEAR, center=[0, 0])


def _translate(image: torch.Tensor, translate: list[int]) -> torch.Tensor:
    return functional.affine(image, 0.0, translate, 1.0, [0.0, 0.0], interpolation=BILINEAR)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("bin_and_sign", [(30, -1.0), (7, 1.0), (19, -1.0), (0, 1.0)])
@pytest.mark.parametrize("operation", list(Operation), ids=lambda operation: operation.name)
def test_trivial_augment_is_torchvisions(operation: Operation, bin_and_sign: tuple[int, float], channels: int) -> None:
    images, _ = batch(channels=channels)
    images[0] = 0.4  # flat: nothing to stretch
    strength, sign = bin_and_sign[0] / 30, bin_and_sign[1]
    drawn = (torch.full((len(images),), float(each)) for each in (operation, strength, sign))
    out = trivial_augment._apply(images, *drawn, "constant", 0.0)
    expected = REFERENCES[operation](bytes_of(images), strength * sign) / 255
    # 8-bit arithmetic cuts off what floats keep: at most a level of the pixel and one of the mean, doubled.
    tolerance = 0.0 if operation in {Operation.IDENTITY, Operation.POSTERIZE} else 2.1 / 255
    torch.testing.assert_close(out, expected, atol=tolerance + 1e-6, rtol=0)


def test_trivial_augment_draws_all_operations_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    images, targets = same_image(4000, channels=1, height=4, width=4)
    seen: list[torch.Tensor] = []
    monkeypatch.setattr(trivial_augment, "_apply", lambda images, *drawn: seen.extend(drawn) or images)
    load("trivial_augment")(images, targets, seeded())
    operation, strength, sign = seen[:3]
    assert torch.bincount(operation.long(), minlength=14).min() > 4000 / 14 * 0.75
    assert torch.bincount((strength * 30).round().long(), minlength=31).min() > 4000 / 31 * 0.6
    assert set(sign.tolist()) == {-1.0, 1.0}
    assert abs(sign.mean()) < 0.1


def test_trivial_augment_of_a_batch_is_that_of_its_images() -> None:
    images, _ = batch(len(Operation))
    drawn = (torch.arange(14.0), torch.linspace(0, 30, 14).round() / 30, torch.tensor([1.0, -1.0]).repeat(7))
    together = trivial_augment._apply(images, *drawn, "edge", 0.0)
    for index in range(14):
        one = [each[index : index + 1] for each in (images, *drawn)]
        torch.testing.assert_close(trivial_augment._apply(*one, "edge", 0.0)[0], together[index], atol=1e-6, rtol=0)


@pytest.mark.gpu
@pytest.mark.parametrize(("name", "options"), VARIANTS, ids=str)
def test_a_gpu_works_without_waiting(name: str, options: dict[str, Any]) -> None:
    images, targets = (each.cuda() for each in batch())
    augment, generator = load(name, **options), torch.Generator("cuda").manual_seed(0)
    augment(images, targets, generator)  # loads kernels
    torch.cuda.set_sync_debug_mode("error")
    try:
        out, out_targets = augment(images, targets, generator)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert out.device == images.device
    assert out.isfinite().all()
    assert out.min() >= 0
    assert out.max() <= 1
    torch.testing.assert_close(out_targets.sum(dim=1), torch.ones(len(out), device="cuda"))


@pytest.mark.gpu
def test_trivial_augment_on_a_gpu_is_that_of_the_cpu() -> None:
    images, _ = batch(len(Operation))
    drawn = (torch.arange(14.0), torch.full((14,), 20 / 30), torch.ones(14))
    there = trivial_augment._apply(*(each.cuda() for each in (images, *drawn)), "edge", 0.0)
    torch.testing.assert_close(there.cpu(), trivial_augment._apply(images, *drawn, "edge", 0.0), atol=1e-4, rtol=0)


def test_equalizing_leaves_dark_tails_to_pillows_arithmetic() -> None:
    levels = torch.randint(0, 40, (3, 3, 500), generator=seeded())
    curves = _tone.equalizing_curves(levels)
    out = _tone.apply_curves(curves, levels, torch.Size((3, 3, 20, 25)))
    expected = functional.equalize(levels.view(3, 3, 20, 25).to(torch.uint8))
    assert torch.equal(bytes_of(out), expected)


def _others(targets: torch.Tensor) -> torch.Tensor:
    return targets.sum(dim=1) - targets.diagonal()


def _record_boxes(monkeypatch: pytest.MonkeyPatch, seen: list[Any]) -> None:
    """Keep the boxes that crop draws."""

    def recording(*arguments: Any) -> Any:
        seen.append(_boxes.draw_boxes(*arguments))
        return seen[-1]

    monkeypatch.setattr("bench_plugins.augmentations.crop.draw_boxes", recording)
