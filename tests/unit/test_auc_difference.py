"""Two detectors on the same models: the paired difference of their ROC AUCs."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from bezoar.measure.estimates import auc, auc_difference

Scores = tuple[list[float], list[float]]


def alone(poisoned: int, clean: int) -> tuple[list[int], list[int]]:
    """Every model a group of its own."""
    return list(range(poisoned)), list(range(poisoned, poisoned + clean))


def drawn(generator: np.random.Generator, shift: float, shared: list[np.ndarray]) -> Scores:
    """Scores of unit variance, half of it shared between detectors; poisoned models score `shift` higher."""
    poisoned, clean = (
        (part * math.sqrt(0.5) + generator.normal(size=len(part)) * math.sqrt(0.5)).tolist() for part in shared
    )
    return [score + shift for score in poisoned], clean


def pair(seed: int, poisoned: int = 30, clean: int = 40) -> tuple[Scores, Scores]:
    generator = np.random.default_rng(seed)
    shared = [generator.normal(size=poisoned), generator.normal(size=clean)]
    return drawn(generator, 1.5, shared), drawn(generator, 0.8, shared)


def truth(shift: float) -> float:
    return float(stats.norm.cdf(shift / math.sqrt(2)))


def test_its_value_is_the_difference_of_scikit_learn_s_areas() -> None:
    first, second = pair(0)
    labels = [1] * 30 + [0] * 40
    expected = roc_auc_score(labels, [*first[0], *first[1]]) - roc_auc_score(labels, [*second[0], *second[1]])
    found = auc_difference(first, second, alone(30, 40))
    assert found.value == pytest.approx(expected)
    assert found.low < found.value < found.high
    assert (found.n, found.unit) == (70, "models")


def test_its_interval_covers_the_truth_and_is_shorter_than_one_that_ignores_the_pairing() -> None:
    expected, covered, shorter = truth(1.5) - truth(0.8), 0, 0
    for seed in range(300):
        first, second = pair(seed)
        found = auc_difference(first, second, alone(30, 40))
        covered += found.low <= expected <= found.high
        one, other = auc(*first), auc(*second)
        unpaired = math.hypot(one.value - one.low, other.high - other.value)
        shorter += found.value - found.low < unpaired
    assert covered / 300 > 0.93
    assert shorter / 300 > 0.95


def test_far_from_the_edges_its_width_is_that_of_delong_s_variance() -> None:
    """Second route: DeLong's covariance of two areas, from its definition, model by model."""
    first, second = pair(1, 150, 200)

    def components(scores: Scores) -> tuple[np.ndarray, np.ndarray]:
        wins = [[float(p > c) + 0.5 * (p == c) for c in scores[1]] for p in scores[0]]
        return np.mean(wins, axis=1), np.mean(wins, axis=0)

    (a10, a01), (b10, b01) = components(first), components(second)
    variance = np.var(a10 - b10, ddof=1) / 150 + np.var(a01 - b01, ddof=1) / 200
    found = auc_difference(first, second, alone(150, 200))
    assert found.high - found.low == pytest.approx(2 * 1.96 * math.sqrt(variance), rel=0.1)


def test_copies_of_a_model_say_nothing_new() -> None:
    first, second = pair(2)
    copied = [([*part[0]] * 3, [*part[1]] * 3) for part in (first, second)]
    once, groups = auc_difference(first, second, alone(30, 40)), alone(30, 40)
    thrice = auc_difference(copied[0], copied[1], (groups[0] * 3, groups[1] * 3))
    blind = auc_difference(copied[0], copied[1], alone(90, 120))
    assert thrice.high - thrice.low == pytest.approx(once.high - once.low, rel=0.05)
    assert blind.high - blind.low < 0.7 * (once.high - once.low)


def test_copies_of_models_that_are_all_in_order_say_nothing_new_either() -> None:
    perfect, other = ([2.0, 3.0, 4.0], [0.0, 1.0, 1.5]), ([5.0, 7.0, 6.0], [1.0, 0.0, 2.0])
    once, groups = auc_difference(perfect, other, alone(3, 3)), alone(3, 3)
    copied = [([*part[0]] * 20, [*part[1]] * 20) for part in (perfect, other)]
    many = auc_difference(copied[0], copied[1], (groups[0] * 20, groups[1] * 20))
    assert many.low < 0.7 * once.low < 0
    blind = auc_difference(copied[0], copied[1], alone(60, 60))
    assert blind.low > 0.3 * once.low


def test_an_area_over_groups_is_as_uncertain_as_over_one_model_of_each() -> None:
    scores, _ = pair(5)
    groups = alone(30, 40)
    once, grouped = auc(*scores), auc([*scores[0]] * 3, [*scores[1]] * 3, (groups[0] * 3, groups[1] * 3))
    assert grouped.value == pytest.approx(once.value)
    assert grouped.high - grouped.low == pytest.approx(once.high - once.low, rel=0.05)


def test_a_detector_does_not_differ_from_itself() -> None:
    first, _ = pair(3)
    found = auc_difference(first, first, alone(30, 40))
    assert found.value == 0
    one = auc(*first)  # its interval is lopsided, and that much is left
    assert found.high == pytest.approx((one.value - one.low) - (one.high - one.value))


def test_two_perfect_detectors_leave_room_for_a_difference() -> None:
    perfect = ([2.0, 3.0, 4.0], [0.0, 1.0, 1.5])
    found = auc_difference(perfect, ([5.0, 7.0, 6.0], [1.0, 0.0, 2.0]), alone(3, 3))
    assert found.value == 0
    assert found.low < -0.1
    assert found.high > 0.1


def test_turned_round_it_changes_its_sign() -> None:
    first, second = pair(4)
    there, back = (auc_difference(*both, alone(30, 40)) for both in ((first, second), (second, first)))
    assert (back.value, back.low, back.high) == pytest.approx((-there.value, -there.high, -there.low))


def test_without_a_population_there_is_no_difference() -> None:
    found = auc_difference(([], [1.0]), ([], [2.0]), ([], [0]))
    assert math.isnan(found.value)
    assert (found.low, found.high) == (-1, 1)
