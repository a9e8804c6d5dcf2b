"""The chart of refusals: run lengths in closed form, summed up and simulated, and what a threshold keeps."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from bezoar.errors import SettingError
from bezoar.measure.monitoring import Chart, average_run_length, chart, refusal_rate, threshold
from bezoar.seed import Seed


def simulated(p: float, chart: Chart, runs: int) -> tuple[float, float]:
    """Mean run length and its standard error, by many streams side by side; no code in common with the chart."""
    generator = np.random.default_rng(5)
    sums, lengths = np.zeros(runs), np.zeros(runs)
    going = np.ones(runs, dtype=bool)
    while going.any():
        refused = generator.random(int(going.sum())) < p
        sums[going] = np.maximum(0, sums[going] + np.where(refused, chart.up, -chart.down))
        lengths[going] += 1
        going &= sums < chart.threshold
    return float(lengths.mean()), float(lengths.std() / math.sqrt(runs))


@pytest.mark.parametrize("p", [0.01, 0.3, 0.5, 0.9, 1.0])
def test_run_lengths_in_closed_form(p: float):
    """The first refusal; two in excess of the answers; and two in a row, as an answer throws back to 0."""
    assert average_run_length(p, Chart(1, 1, 1)) == pytest.approx(1 / p)
    assert average_run_length(p, Chart(1, 1, 2)) == pytest.approx((1 + p) / p**2)
    assert average_run_length(p, Chart(1, 9, 3)) == pytest.approx((1 + p + p**2) / p**3)
    assert average_run_length(1.0, Chart(3, 2, 10)) == 4
    assert average_run_length(0.0, Chart(1, 1, 2)) == math.inf


@pytest.mark.parametrize(("p", "case"), [(0.05, Chart(9, 1, 20)), (0.3, Chart(17, 3, 60)), (0.5, Chart(7, 2, 90))])
def test_run_lengths_are_those_of_the_whole_distribution_and_of_a_simulation(p: float, case: Chart):
    """Second route: the probability that the chart is still silent, summed query by query. Third: drawn streams."""
    silent = np.zeros(case.threshold)
    silent[0] = 1
    total = 0.0
    while silent.sum() > 1e-12:
        total += silent.sum()
        after = np.zeros_like(silent)
        for level, chance in enumerate(silent):
            after[max(0, level - case.down)] += (1 - p) * chance
            if level + case.up < case.threshold:
                after[level + case.up] += p * chance
        silent = after
    exact = average_run_length(p, case)
    assert exact == pytest.approx(total, rel=1e-9)
    mean, error = simulated(p, case, 4000)
    assert abs(mean - exact) < 4 * error


@pytest.mark.parametrize(("p0", "p1", "arl"), [(0.05, 0.2, 1e3), (0.3, 0.5, 5e3), (0.01, 0.02, 1e4), (0.6, 0.9, 20.0)])
def test_the_threshold_is_the_smallest_that_keeps_false_alarms_away(p0: float, p1: float, arl: float):
    made = chart(p0, p1, arl)
    assert made.threshold == threshold(p0, p1, arl)
    assert average_run_length(p0, made) >= arl
    assert made.threshold == 1 or average_run_length(p0, Chart(made.up, made.down, made.threshold - 1)) < arl
    assert p0 < made.down / (made.up + made.down) < p1  # falls on average at p0, rises at p1


def test_a_chart_is_quicker_at_its_own_rate_than_those_for_others():
    """What the likelihood ratio is for (Moustakides 1986); thresholds are coarse, so by a margin."""
    made = {p1: chart(0.05, p1, 2000.0) for p1 in (0.1, 0.2, 0.6)}
    for p1, own in made.items():
        assert average_run_length(p1, own) <= 1.05 * min(average_run_length(p1, each) for each in made.values())


def test_the_more_queries_are_attacked_the_sooner_comes_the_alarm():
    made = chart(0.1, 0.3, 10_000.0)
    delays = [average_run_length(refusal_rate(0.1, 0.9, share), made) for share in (0.0, 0.05, 0.1, 0.25, 0.5, 1.0)]
    assert delays == sorted(delays, reverse=True)
    assert delays[0] >= 10_000
    assert delays[3] < 50
    assert refusal_rate(0.1, 0.9, 0.25) == pytest.approx(0.3)


def test_the_sum_and_the_alarm_are_those_of_a_stream_written_down():
    refused = torch.tensor([0, 1, 0, 1, 1, 0, 1], dtype=torch.bool)
    made = Chart(3, 2, 7)
    assert made.sums(refused).tolist() == [0, 3, 1, 4, 7, 5, 8]
    assert made.alarm(refused) == 5
    assert made.alarm(refused[:4]) is None


def test_streams_at_the_wanted_rate_raise_the_alarm_after_the_run_length():
    made = chart(0.1, 0.4, 500.0)
    drawn = torch.rand(300, 200, generator=Seed(1).generator()) < 0.4
    lengths = [made.alarm(stream) for stream in drawn]
    found = torch.tensor([each for each in lengths if each is not None], dtype=torch.float64)
    assert len(found) == 300
    error = float(found.std()) / math.sqrt(300)
    assert abs(float(found.mean()) - average_run_length(0.4, made)) < 4 * error


def test_a_length_that_rounding_hides_is_infinite():
    assert average_run_length(0.1, Chart(1, 1, 12)) == pytest.approx(simple_walk(0.1, 12), rel=1e-3)
    assert average_run_length(0.1, Chart(1, 1, 400)) == math.inf


def simple_walk(p: float, height: int) -> float:
    """A walk with a floor at 0: d steps from a level to the next one, where d' = 1 / p + d (1 - p) / p."""
    total, one = 0.0, 1 / p
    for _ in range(height):
        total += one
        one = 1 / p + one * (1 - p) / p
    return total


def test_rates_that_cannot_be_are_refused_by_name():
    for given, message in {
        (0.0, 0.5, 100.0): r"p0: 0 .* upper end of the interval",
        (0.5, 0.5, 100.0): r"p1: 0.5 .* between p0=0.5 and 1",
        (0.1, 1.0, 100.0): "p1: 1 ",
        (0.1, 0.2, 0.5): "arl: 0.5",
        (0.1, 0.100001, 100.0): "p1: 0.100001 is too near",
        (0.1, 0.2, 1e300): r"arl: 1e\+300 .* between 1 and 1e\+12",
    }.items():
        with pytest.raises(SettingError, match=message):
            chart(*given)
    with pytest.raises(SettingError, match=r"p: 1\.5"):
        average_run_length(1.5, Chart(1, 1, 1))
    with pytest.raises(SettingError, match="share: 2"):
        refusal_rate(0.1, 0.2, 2.0)
    with pytest.raises(SettingError, match="denominator: 1"):
        chart(0.1, 0.2, 100.0, denominator=1)
