"""Faces by hand-crafted descriptors: what each of them sees, whitenings by their definitions, and what is declined."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from bench.errors import BenchError, Unsupported
from bench.kinds import PAIR_CLASSES, DataSpec
from bench_plugins.models._dense_descriptors import CosineCodes, Gabor, LocalBinaryPatterns, Sift
from bench_plugins.models._whitening import cross_fitted_cosines, folds_of, logistic, whitened_pca, within
from bench_plugins.models.face_descriptor import face_descriptor

SMALL = {"face": (56, 50), "dims": 16}


def spec_of(height: int = 64, width: int = 64, channels: int = 1) -> DataSpec:
    return DataSpec("verification", PAIR_CLASSES, channels, (height, width))


def small(**options: Any) -> Any:
    return face_descriptor(spec_of(), **{**SMALL, **options})


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def ramp(side: int = 60) -> torch.Tensor:
    """A face that gets brighter from left to right."""
    return torch.linspace(0, 1, side).expand(1, 1, side, side)


def persons(count: int, *, seed: int, num_images: int = 4) -> torch.Tensor:
    """Images count * num_images,1,64,64: a smooth pattern for each person, changed by light and noise."""
    generator = torch.Generator().manual_seed(seed)
    patterns = torch.rand(count, 1, 8, 8, generator=generator).repeat_interleave(num_images, 0)
    patterns = patterns + 0.2 * torch.randn(count * num_images, 1, 8, 8, generator=generator)
    images = functional.interpolate(patterns, 64, mode="bicubic", align_corners=False)
    light = 0.5 + 0.5 * torch.rand(count * num_images, 1, 1, 1, generator=generator)
    return (0.2 + 0.3 * light * images + 0.02 * torch.randn(images.shape, generator=generator)).clamp(0, 1)


def pairs_of(count: int, *, num_images: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    """For each person: pairs 0-1, 1-2, 2-3 of its images, and as many with the next persons' images."""
    same = [(4 * p + i, 4 * p + i + 1) for p in range(count) for i in range(num_images - 1)]
    other = [(4 * p + i, 4 * ((p + 1 + i) % count) + i) for p in range(count) for i in range(num_images - 1)]
    return torch.tensor(same + other), torch.tensor([1] * len(same) + [0] * len(other))


def fit(model: Any) -> Any:
    pairs, labels = pairs_of(30)
    model.fit_features(iter(persons(30, seed=0).split(16)), pairs=pairs, labels=labels)
    return model.eval()


@pytest.fixture(scope="module")
def fitted() -> Any:
    return fit(small(descriptors=("lbp", "sift")))


# Descriptors


def test_a_local_binary_pattern_names_the_brighter_neighbours() -> None:
    patterns = LocalBinaryPatterns((40, 40), 1)
    right = torch.zeros(1, 1, 40, 40)
    right[..., 20:] = 1
    codes = patterns.codes(right)[0, 0]
    assert codes[:, 19].unique().tolist() == [2**0 + 2**1 + 2**7]  # right, above right, below right
    assert codes[:, :19].count_nonzero() + codes[:, 20:].count_nonzero() == 0
    above = patterns.codes(right.transpose(2, 3).flip(2))[0, 0]
    assert above[20].unique().tolist() == [2**1 + 2**2 + 2**3]


def test_a_neighbour_that_is_brighter_by_noise_does_not_count() -> None:
    faces = 0.5 + 0.001 * noise(1, 1, 40, 40)
    assert LocalBinaryPatterns((40, 40), 2).codes(faces).count_nonzero() == 0
    assert LocalBinaryPatterns((40, 40), 2).codes(100 * faces).count_nonzero() > 1000


def test_58_patterns_are_uniform_and_the_others_share_a_bin() -> None:
    counts = LocalBinaryPatterns((40, 40), 1).bins.long().bincount()
    assert counts.tolist() == [1] * 58 + [256 - 58]


def test_the_squares_of_a_cells_histogram_are_shares() -> None:
    face = (60, 50)
    for descriptor, num_codes in ((LocalBinaryPatterns(face, 3), 59), (CosineCodes(face, 9), 64)):
        cells = descriptor(noise(2, 1, *face)).reshape(2, num_codes, 5 * 4)
        torch.testing.assert_close(cells.square().sum(1), torch.ones(2, 20))


def test_the_first_cosine_code_says_which_side_is_brighter() -> None:
    descriptor = CosineCodes((60, 60), 5)
    for faces, share in ((ramp(), 0.0), (ramp().flip(3), 1.0)):
        cells = descriptor(faces).reshape(64, 25).square()
        torch.testing.assert_close(cells[1::2].sum(0), torch.full((25,), share))


def test_sift_is_indifferent_to_brightness_and_contrast() -> None:
    descriptor, faces = Sift(1.0, 6, 8), noise(2, 1, 60, 50)
    expected = descriptor(faces)
    torch.testing.assert_close(descriptor(0.6 * faces + 0.3), expected, atol=5e-3, rtol=0)
    assert (descriptor(faces.flip(2)) - expected).abs().max() > 0.05


@pytest.mark.parametrize("turns", range(4))
def test_sift_puts_a_slope_into_its_direction(turns: int) -> None:
    shares = Sift(1.0, 6, 8)(ramp().rot90(-turns, (2, 3))).square().reshape(16, 8, -1)  # clockwise, as rows go down
    assert shares.sum(1).mean() == pytest.approx(1 / 16, rel=0.05)
    assert shares.mean((0, 2)).argmax() == 2 * turns
    assert shares[:, 2 * turns].mean() == pytest.approx(1 / 16 * 2 / 3, rel=0.05)  # the two next to it get 1/4 each


def test_gabor_answers_most_along_a_wave() -> None:
    wave = 0.5 + 0.5 * (2 * torch.pi * torch.arange(60.0) / 8).cos().expand(1, 1, 60, 60)
    assert Gabor(8.0)(wave).reshape(8, -1).mean(1).argmax() == 0
    assert Gabor(8.0)(wave.transpose(2, 3)).reshape(8, -1).mean(1).argmax() == 4
    assert Gabor(8.0)(wave).square().square().mean() == pytest.approx(1.0, rel=1e-3)


# Whitening


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_whitened_components_are_uncorrelated_with_variance_1(dtype: torch.dtype) -> None:
    raw = (noise(50, 4000) @ torch.diag(torch.linspace(0.1, 3, 4000)) + 1).to(dtype)
    pca = whitened_pca(raw, 20)
    torch.testing.assert_close(pca.projected.T @ pca.projected / 50, torch.eye(20), atol=1e-3, rtol=0)
    torch.testing.assert_close((raw.float() - pca.mean) @ pca.matrix, pca.projected, atol=1e-3, rtol=1e-3)


def test_the_components_are_those_of_the_largest_variance() -> None:
    raw = noise(60, 6, seed=1) * torch.tensor([0.1, 5, 0.1, 0.1, 9, 0.1])
    matrix = whitened_pca(raw, 2).matrix
    assert matrix.abs().argmax(0).tolist() == [4, 1]


def test_too_few_training_images_say_how_many_dimensions_are_left() -> None:
    with pytest.raises(
        BenchError, match=r"10 training images vary in 9 directions, fewer than model.dims = 16"
    ) as error:
        whitened_pca(noise(10, 300), 16)
    assert "--set model.dims=9" in (error.value.hint or "")
    with pytest.raises(BenchError, match="vary in 0 directions") as error:
        whitened_pca(noise(1, 300).repeat(10, 1), 4)
    assert error.value.hint == "the images are all alike"


def test_within_makes_the_differences_of_a_person_white() -> None:
    units = noise(200, 6, seed=2) * torch.linspace(0.5, 4, 6)
    matched = torch.arange(200).reshape(-1, 2)
    whitened = units @ within(units, matched, shrink=1e-9)
    differences = (whitened[matched[:, 0]] - whitened[matched[:, 1]]) / 2**0.5
    torch.testing.assert_close(differences.T @ differences / 100, torch.eye(6), atol=1e-4, rtol=0)


def test_shrinking_wholly_leaves_the_directions_as_they_are() -> None:
    matrix = within(noise(20, 3), torch.arange(20).reshape(-1, 2), shrink=1.0)
    torch.testing.assert_close(matrix, matrix[0, 0] * torch.eye(3))


def test_pairs_whose_first_images_are_of_one_person_share_a_fold() -> None:
    pairs = torch.tensor([[0, 1], [5, 6], [1, 2], [2, 5], [6, 9], [9, 0], [7, 8]])
    folds = folds_of(pairs, torch.tensor([1, 1, 1, 0, 0, 0, 1]), num_folds=5).tolist()
    assert folds[0] == folds[2] == folds[3]
    assert folds[1] == folds[4]
    assert len({folds[0], folds[1], folds[6]}) == 3


def test_persons_are_spread_evenly_over_the_folds() -> None:
    pairs, labels = pairs_of(40)
    folds = folds_of(pairs, labels, num_folds=5)
    assert folds[labels > 0].bincount().tolist() == [8 * 3] * 5


@pytest.mark.parametrize(
    ("pairs", "labels", "told"),
    [
        ([[0, 1], [2, 3]], [1, 1], "2 persons with matched pairs and 0 pairs of different persons"),
        ([[0, 1], [2, 3]], [0, 0], "0 persons with matched pairs and 2 pairs"),
        ([[0, 1], [1, 2], [2, 3]], [1, 1, 0], "1 persons with matched pairs and 1 pairs"),
    ],
)
def test_pairs_that_tell_nothing_are_an_error(pairs: list[list[int]], labels: list[int], told: str) -> None:
    with pytest.raises(BenchError, match=told):
        folds_of(torch.tensor(pairs), torch.tensor(labels), num_folds=5)


def test_a_folds_cosines_do_not_depend_on_its_own_matched_pairs() -> None:
    (pairs, labels), units = pairs_of(20), [functional.normalize(noise(80, 5, seed=seed) - 0.5) for seed in (0, 1)]
    folds = folds_of(pairs, labels, num_folds=5)
    before = cross_fitted_cosines(units, pairs, labels, folds=folds, shrink=0.02)
    hidden = torch.where(folds == 2, 0, labels)
    after = cross_fitted_cosines(units, pairs, hidden, folds=folds, shrink=0.02)
    assert before.shape == (120, 2)
    assert before[folds == 2].equal(after[folds == 2])
    assert (before != after)[folds != 2].all()


def test_the_logit_is_0_between_the_classes_however_many_pairs_each_has() -> None:
    different, same = [0.1, 0.3, 0.45], [0.7, 0.5, 0.35]  # mirrored at 0.4
    cosines = torch.tensor(different * 10 + same)[:, None]
    weight, bias = logistic(cosines, torch.tensor([0] * 30 + [1] * 3))
    assert weight.shape == (1, 1)
    assert weight.item() > 1
    assert (0.4 * weight + bias).item() == pytest.approx(0.0, abs=1e-3)


# The model


def test_the_face_of_lfw_is_a_little_below_the_centre() -> None:
    model: Any = face_descriptor(spec_of(250, 250), dims=2, descriptors=("gabor",))
    images = noise(1, 1, 250, 250)
    assert model.faces(images).equal(images[:, :, 63:193, 75:175])
    model = face_descriptor(spec_of(250, 250), dims=2, descriptors=("gabor",), centre=(70, 60))
    assert model.faces(images).equal(images[:, :, 5:135, 10:110])


def test_colours_become_grey() -> None:
    model: Any = face_descriptor(spec_of(channels=3), face=(64, 64), dims=2, descriptors=("gabor",))
    faces = model.faces(torch.tensor([1.0, 0.5, 0.0]).reshape(1, 3, 1, 1).expand(1, 3, 64, 64))
    torch.testing.assert_close(faces, torch.full((1, 1, 64, 64), 0.299 + 0.587 / 2))


def test_features_are_unit_pieces_and_a_mirrored_face_has_the_same(fitted: Any) -> None:
    images = persons(2, seed=5)
    features = fitted.forward_features(images)
    assert features.shape == (8, 2 * 16)
    torch.testing.assert_close(features.reshape(8, 2, 16).norm(dim=2), torch.ones(8, 2))
    torch.testing.assert_close(fitted.forward_features(images.flip(3)), features, atol=1e-4, rtol=0)


def test_the_logit_is_a_weighted_sum_of_cosines() -> None:
    model = small(dims=2, descriptors=("lbp", "gabor"))
    with torch.no_grad():
        model.head.weight.copy_(torch.tensor([[2.0, 3.0]]))
        model.head.bias.fill_(-1.0)
        first, second = torch.tensor([[1.0, 0, 0.6, 0.8]]), torch.tensor([[1.0, 0, 0.8, 0.6]])
        assert model.forward_head(first, second).item() == pytest.approx(2 * 1 + 3 * 0.96 - 1)


def test_strangers_are_told_apart_and_the_logit_0_is_near_the_best_threshold(fitted: Any) -> None:
    images, (pairs, labels) = persons(40, seed=1), pairs_of(40)
    with torch.no_grad():
        features = torch.cat([fitted.forward_features(batch) for batch in images.split(16)])
        logits = fitted.forward_head(features[pairs[:, 0]], features[pairs[:, 1]])[:, 0]
    same, different = logits[labels > 0], logits[labels == 0]
    accuracies = [float(((same > t).float().mean() + (different <= t).float().mean()) / 2) for t in (0.0, *logits)]
    assert accuracies[0] > 0.85
    assert accuracies[0] > max(accuracies) - 0.03
    assert logits.max() > 1
    assert logits.min() < -1


def test_fitting_is_deterministic_and_draws_nothing(fitted: Any) -> None:
    model = small(descriptors=("lbp", "sift"))
    fresh = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    torch.manual_seed(2)
    state = torch.get_rng_state()
    again = fit(model).state_dict()
    assert torch.get_rng_state().equal(state)
    for name, tensor in fitted.state_dict().items():
        assert tensor.equal(again[name])
        assert not tensor.equal(fresh[name])


def test_only_the_weights_of_the_cosines_are_trainable() -> None:
    assert {name: parameter.numel() for name, parameter in small().named_parameters()} == {
        "head.weight": 4,
        "head.bias": 1,
    }


def test_a_lower_precision_does_not_change_the_logits(fitted: Any) -> None:
    first, second = persons(2, seed=3).split(4)
    with torch.no_grad():
        expected = fitted(first, second)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert fitted(first, second).equal(expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"face": (70, 50)}, "a face of 70 x 50 pixels is not inside images of 64 x 64"),
        ({"face": (50, 66)}, "a face of 50 x 66 pixels is not inside images of 64 x 64"),
        ({"face": (56, 50), "centre": (40, 32)}, "56 x 50 pixels around row 40, column 32 is not inside"),
        ({"face": (56, 50), "centre": (32, 20)}, "56 x 50 pixels around row 32, column 20 is not inside"),
        ({"face": (49, 60)}, "'sift' describes faces of at least 50 x 50 pixels, not of 49 x 60"),
        ({"face": (19, 60), "descriptors": ("lbp",)}, "'lbp' describes faces of at least 20 x 20 pixels"),
        ({"descriptors": ("lbp", "lbp")}, "descriptors names one twice: lbp, lbp"),
    ],
)
def test_what_does_not_fit_is_declined(options: dict[str, Any], message: str) -> None:
    with pytest.raises(Unsupported, match=message):
        small(**options)


def test_the_smallest_faces_that_fit_are_described() -> None:
    images = noise(2, 1, 64, 64)
    for face, descriptors in (((50, 50), ("sift",)), ((20, 20), ("lbp", "codes"))):
        features = small(face=face, descriptors=descriptors, dims=3).forward_features(images)
        assert features.shape == (2, 3 * len(descriptors))


def test_data_that_are_no_pairs_are_declined() -> None:
    with pytest.raises(Unsupported, match="face_descriptor compares pairs of images"):
        face_descriptor(replace(spec_of(), task="classification"))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # of torch's exporter
def test_an_onnx_graph_gives_the_same_for_any_number_of_pairs(tmp_path: Path) -> None:
    import onnxruntime

    model = fit(small())
    images = persons(7, seed=4, num_images=2)
    images[2, :, :, :40] = images[4] = 1.0  # flat regions, where directions and shares could be 0 / 0
    first, second = images.split(7)
    dynamic = {0: torch.export.Dim.DYNAMIC}
    torch.onnx.export(
        model,
        (first[:2], second[:2]),
        tmp_path / "model.onnx",
        dynamo=True,
        input_names=["first", "second"],
        dynamic_shapes={"first": dynamic, "second": dynamic},
        verbose=False,
    )
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    for count in (1, 2, 7):
        with torch.no_grad():
            expected = model(first[:count], second[:count])
        (given,) = session.run(None, {"first": first[:count].numpy(), "second": second[:count].numpy()})
        np.testing.assert_allclose(given, expected, atol=1e-4, rtol=0)
