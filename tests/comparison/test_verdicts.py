"""Verdicts agree with SciPy, and nothing is called better inside the noise."""

from __future__ import annotations

import itertools
import math
import shutil
from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from bench.comparison import compare
from bench.comparison.answers import Evidence
from bench.comparison.letters import letters
from bench.comparison.paired import mcnemar_p, paired_intervals
from bench.comparison.varying import over_folds, over_images, over_seeds, sign_flip_p
from bench.record import Run
from bench.statistics import holm, mcnemar, paired_difference_interval

Recorder = Callable[..., Run]

GROUPS = ("20261126-100000-aaaa", "20261126-100001-bbbb", "20261126-100002-cccc")


def seeds(accuracies: dict[int, float], *, images: int = 1000) -> Evidence:
    right = sum((np.arange(images) < round(one * images)).astype(np.int64) for one in accuracies.values())
    return Evidence("seeds", "set", images, np.asarray(right), accuracies)


def test_two_runs_are_judged_by_the_exact_mcnemar_test(recorded: Recorder, generator: np.random.Generator) -> None:
    answers = [generator.random(400) < share for share in (0.9, 0.82, 0.8)]
    for group, right in zip(GROUPS, answers, strict=True):
        recorded(right, group=group)
    found = compare(["toys"])
    order = sorted(answers, key=lambda right: -right.mean())
    by_hand = []
    for (a, first), (b, second) in itertools.combinations(enumerate(order, 1), 2):
        gained, lost = int((first & ~second).sum()), int((~first & second).sum())
        by_hand.append(stats.binomtest(min(gained, lost), gained + lost, 0.5).pvalue)
        verdict = next(one for one in found.verdicts if (one.first, one.second) == (a, b))
        assert verdict.test == "McNemar"
        assert verdict.p == pytest.approx(by_hand[-1], rel=1e-9)
        assert verdict.difference == pytest.approx((gained - lost) / 400)
        assert (verdict.low, verdict.high) == pytest.approx(paired_difference_interval(gained, lost, 400), abs=1e-9)
    assert [one.adjusted for one in found.verdicts] == pytest.approx(holm(by_hand), rel=1e-9)
    assert found.num_pairs == 3
    assert [one.differs for one in found.verdicts] == [p < 0.05 for p in holm(by_hand)]


def test_many_pairs_at_once_are_the_same_as_one_by_one() -> None:
    cases = [(0, 0), (1, 0), (0, 7), (5, 5), (12, 3), (3, 12), (90, 110), (900, 1100), (2000, 2501), (40, 0)]
    gained, lost = np.array(cases).T
    trials = np.full(len(cases), 5000)
    assert mcnemar_p(gained, lost) == pytest.approx([mcnemar(a, b) for a, b in cases], rel=1e-9)
    ends = [paired_difference_interval(a, b, 5000) for a, b in cases]
    assert np.transpose(paired_intervals(gained, lost, trials)) == pytest.approx(np.array(ends), abs=1e-9)
    # Every image is one on which they differ.
    ends = [paired_difference_interval(a, b, 40) for a, b in ((40, 0), (0, 40), (20, 20))]
    found = paired_intervals(np.array([40, 0, 20]), np.array([0, 40, 20]), np.full(3, 40))
    assert np.transpose(found) == pytest.approx(np.array(ends), abs=1e-9)


def test_groups_with_the_same_seeds_are_paired() -> None:
    first, second = [0.91, 0.93, 0.92, 0.95], [0.90, 0.915, 0.91, 0.93]
    part = over_seeds(seeds(dict(enumerate(first))), seeds(dict(enumerate(second))))
    expected = stats.ttest_rel(first, second)
    assert part.p == pytest.approx(expected.pvalue)
    assert (part.low, part.high) == pytest.approx(tuple(expected.confidence_interval(0.95)))


def test_groups_with_other_seeds_are_judged_by_welch() -> None:
    first, second = [0.91, 0.93, 0.92], [0.90, 0.85, 0.88, 0.89]
    part = over_seeds(seeds(dict(enumerate(first))), seeds({7 + n: one for n, one in enumerate(second)}))
    expected = stats.ttest_ind(first, second, equal_var=False)
    assert part.test.startswith("Welch")
    assert part.p == pytest.approx(expected.pvalue)
    assert (part.low, part.high) == pytest.approx(tuple(expected.confidence_interval(0.95)))


@pytest.mark.parametrize("turned", [False, True])
def test_a_run_is_compared_with_seeds_as_one_case_with_a_sample(*, turned: bool) -> None:
    group = [0.91, 0.93, 0.92, 0.95]
    pair = seeds({0: 0.85}), seeds(dict(enumerate(group)))
    part = over_seeds(*(pair[::-1] if turned else pair))
    # Crawford and Howell (1998), formula 1.
    t = (0.85 - np.mean(group)) / (np.std(group, ddof=1) * math.sqrt(5 / 4))
    assert part.p == pytest.approx(2 * stats.t.sf(abs(t), 3))
    assert part.low < (np.mean(group) - 0.85) * (1 if turned else -1) < part.high


def test_seeds_that_never_vary_leave_the_verdict_to_the_images() -> None:
    same = over_seeds(seeds({0: 0.9, 1: 0.9}), seeds({0: 0.9, 1: 0.9}))
    other = over_seeds(seeds({0: 0.9, 1: 0.9}), seeds({2: 0.8, 3: 0.8}))
    assert (same.p, other.p) == (1.0, 0.0)
    assert (other.low, other.high) == pytest.approx((0.1, 0.1))


def test_sign_flips_are_exact() -> None:
    differences = np.array([2, -1, 0, 3, 1, 1, -2, 3, 0, 2])
    sums = [
        abs(sum(s * d for s, d in zip(signs, differences, strict=True)))
        for signs in itertools.product((1, -1), repeat=10)
    ]
    share = sum(one >= abs(differences.sum()) for one in sums) / len(sums)
    assert sign_flip_p(differences) == pytest.approx(share)
    assert sign_flip_p(-differences) == pytest.approx(share)
    assert sign_flip_p(np.zeros(5, np.int64)) == 1.0
    assert sign_flip_p(np.full(3, 7)) == pytest.approx(0.25)


def test_sign_flips_of_two_runs_are_mcnemar(generator: np.random.Generator) -> None:
    first, second = (generator.random(500) < share for share in (0.9, 0.86))
    pair = [Evidence("run", "set", 500, one.astype(np.int64), {0: float(one.mean())}) for one in (first, second)]
    p = mcnemar(int((first & ~second).sum()), int((~first & second).sum()))
    assert over_images(pair[0], pair[1]).p == pytest.approx(p, rel=1e-6)


def test_folds_are_paired_and_corrected_for_what_they_share() -> None:
    first, second = [0.91, 0.93, 0.92, 0.95], [0.90, 0.915, 0.91, 0.93]
    a, b = (Evidence("folds", "set", 400, None, dict(enumerate(one))) for one in (first, second))
    part, plain = over_folds(a, b), stats.ttest_rel(first, second)
    # Nadeau and Bengio (2003): 1/k becomes 1/k + n_test/n_train, which is 1/(k - 1).
    t = plain.statistic * math.sqrt((1 / 4) / (1 / 4 + 1 / 3))
    assert part.p == pytest.approx(2 * stats.t.sf(abs(t), 3))
    assert part.p > plain.pvalue


def test_seeds_that_agree_prove_nothing_on_few_images(recorded: Recorder) -> None:
    """17 of 30 against 19 of 30, three times each."""
    for seed in range(3):
        recorded(np.arange(30) < 19, group=GROUPS[0], seed=seed)
        recorded(np.arange(30) < 17, group=GROUPS[1], seed=seed)
    (verdict,) = compare(["toys"]).verdicts
    over_seeds_part, over_images_part = verdict.parts
    assert over_seeds_part.p == 0
    assert verdict.p == over_images_part.p == pytest.approx(0.5)
    assert not verdict.differs
    assert verdict.low < 0 < verdict.high


def test_a_copied_folder_is_no_further_seed(recorded: Recorder) -> None:
    runs = [recorded(np.arange(300) < 250 + 10 * seed, group=GROUPS[0], seed=seed) for seed in range(3)]
    recorded(np.arange(300) < 200, group=GROUPS[1])
    before = compare(["toys"])
    shutil.copytree(runs[0].folder, runs[0].folder.with_name(f"{runs[0].name}.bak"))
    shutil.copytree(runs[0].folder.parent, runs[0].folder.parent.with_name("backup"))
    for found in (compare(["toys"]), compare(["toys", "backup"])):
        assert [entry.interval for entry in found.entries] == [entry.interval for entry in before.entries]
        assert found.verdicts == before.verdicts
        assert {one.reason for one in found.left_out if one.name.startswith(runs[0].name)} == {
            f"a copy of toys/{runs[0].name}"
        }
    assert len(compare(["backup"]).entries) == 2


def test_two_runs_of_one_seed_are_no_test(recorded: Recorder) -> None:
    runs = [recorded(np.arange(300) < 250 + 10 * seed, group=GROUPS[0], seed=seed) for seed in range(2)]
    runs[1].update(seed=0)
    [left_out] = compare(["toys"]).left_out
    assert left_out.reason == "not tested: seed 0 is there twice"


def test_a_lucky_seed_proves_nothing_on_many_images(recorded: Recorder) -> None:
    for seed, (first, second) in enumerate([(3000, 2400), (2500, 2450), (2430, 2440)]):
        recorded(np.arange(4000) < first, group=GROUPS[0], seed=seed)
        recorded(np.arange(4000) < second, group=GROUPS[1], seed=seed)
    (verdict,) = compare(["toys"]).verdicts
    assert verdict.parts[1].p < 1e-6
    assert verdict.p == verdict.parts[0].p > 0.05
    assert not verdict.differs


def test_seeds_that_are_clearly_better_are_called_so(recorded: Recorder) -> None:
    for seed in range(3):
        recorded(np.arange(2000) < 1900 + seed, group=GROUPS[0], seed=seed)
        recorded(np.arange(2000) < 1700 + 2 * seed, group=GROUPS[1], seed=seed)
    found = compare(["toys"])
    (verdict,) = found.verdicts
    assert verdict.differs
    assert 0 < verdict.low < verdict.difference < verdict.high
    assert [entry.letters for entry in found.entries] == ["a", "b"]


def test_folds_of_two_recipes_are_compared_fold_by_fold(recorded: Recorder) -> None:
    for fold in range(4):
        names = [f"{fold}-{n}" for n in range(100)]
        recorded(np.arange(100) < 95 - fold % 2, group=GROUPS[0], fold=fold, ids=names)
        recorded(np.arange(100) < 70 + fold % 3, group=GROUPS[1], fold=fold, ids=names)
    found = compare(["toys"])
    assert [entry.kind for entry in found.entries] == ["folds", "folds"]
    assert found.verdicts[0].test == "folds"
    assert found.verdicts[0].differs
    low, high = found.entries[0].interval
    assert (high - low) / 2 == pytest.approx(stats.sem([0.95, 0.94, 0.95, 0.94]))


def test_runs_that_answer_alike_are_tied(recorded: Recorder) -> None:
    for group in GROUPS:
        recorded(np.arange(50) < 40, group=group)
    found = compare(["toys"])
    assert {one.p for one in found.verdicts} == {1.0}
    assert [entry.letters for entry in found.entries] == ["a", "a", "a"]
    assert found.test_sets[0].tied == (2, 3)


@pytest.mark.parametrize("seed", range(20))
def test_entries_share_a_letter_exactly_if_they_are_tied(seed: int) -> None:
    generator = np.random.default_rng(seed)
    numbers = list(range(1, 9))
    pairs = list(itertools.combinations(numbers, 2))
    apart = {pair for pair in pairs if generator.random() < 0.4}
    found = letters(numbers, apart)
    assert found is not None
    assert found[1].startswith("a")
    for a, b in pairs:
        assert bool(set(found[a]) & set(found[b])) == ((a, b) not in apart)


def test_letters_end_with_the_alphabet() -> None:
    numbers = list(range(27))
    assert letters(numbers, set(itertools.combinations(numbers, 2))) is None
