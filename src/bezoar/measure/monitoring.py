"""When does a certifier refuse too often? A cumulative-sum chart of its refusals, with exact run lengths."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import cast

import numpy as np
from jaxtyping import Bool, Int64
from numpy.typing import NDArray
from scipy import linalg
from torch import Tensor

from bezoar.errors import SettingError

LARGEST = 10_000
"""A chart of more levels is refused."""

LONGEST = 1e12
"""Run lengths above it drown in the rounding of float64, and count as infinite."""

FINEST = 1000
"""Rates between which no fraction of a smaller denominator lies are refused as too near each other."""


@dataclass(frozen=True)
class Chart:
    """A one-sided cumulative sum of refusals (Page 1954; for proportions Reynolds & Stoumbos, 1999), in whole numbers.

    The sum begins at 0, rises by `up` with a query that is refused, falls by `down`, but not below 0, with one that is
    answered, and raises the alarm where it reaches `threshold`.
    """

    up: int
    down: int
    threshold: int

    def sums(self, refused: Bool[Tensor, "n"]) -> Int64[Tensor, "n"]:
        """The sum after each query of a stream, as if no alarm stopped it."""
        sums = refused.long()
        total = 0
        for place, bad in enumerate(refused.tolist()):
            total = max(0, total + (self.up if bad else -self.down))
            sums[place] = total
        return sums

    def alarm(self, refused: Bool[Tensor, "n"]) -> int | None:
        """After how many queries of a stream the first alarm comes; None if none does."""
        reached = (self.sums(refused) >= self.threshold).nonzero()
        return int(reached[0]) + 1 if len(reached) else None


def chart(p0: float, p1: float, arl: float, *, denominator: int = 20) -> Chart:
    """The quickest chart for a rate of refusals p1 that lets `arl` queries pass on average before a false alarm at p0.

    A refusal has the log likelihood ratio log(p1 / p0) and an answer log((1 - p1) / (1 - p0)). Their ratio is rounded
    to a fraction of small numbers, so that the chart has finitely many levels and its run length is exact. That
    tunes the chart to a rate near p1, not exactly p1, and changes nothing about its false alarms.

    Args:
        p0: the rate of refusals in normal operation, e.g. on clean images that the model has not seen. As it is an
            estimate, the upper end of its interval (`estimates.proportion`) is the safe choice: a rate that is
            taken too low gives false alarms sooner than `arl`.
        p1: the rate that is to be found out soonest, above p0.
        arl: queries before a false alarm, on average, at least.
        denominator: of the fraction, at most; larger ones fit p1 more closely and cost time.

    Raises:
        SettingError: a rate is not in (0, 1), p1 is not above p0, `arl` is below 1 or cannot be reached.
    """
    up, down = _steps(p0, p1, denominator)
    return Chart(up, down, threshold(p0, p1, arl, denominator=denominator))


def threshold(p0: float, p1: float, arl: float, *, denominator: int = 20) -> int:
    """The smallest threshold of the chart for p0 and p1 at which no false alarm comes before `arl` queries on average.

    Raises:
        SettingError: as `chart`.
    """
    up, down = _steps(p0, p1, denominator)
    if not 1 <= arl <= LONGEST:
        raise SettingError(f"arl: {arl:g} queries before a false alarm cannot be; choose between 1 and {LONGEST:g}")

    def enough(level: int) -> bool:
        return average_run_length(p0, Chart(up, down, level)) >= arl

    high = 1
    while not enough(high):
        high *= 2
        if high > LARGEST:
            raise SettingError(
                f"arl: {arl:g} queries before a false alarm take a chart of more than {LARGEST} levels at p0={p0:g} "
                f"and p1={p1:g}; choose a smaller arl, rates that lie farther apart, or a smaller denominator"
            )
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def average_run_length(p: float, chart: Chart) -> float:
    """How many queries pass on average until the alarm, where each is refused with probability p for itself.

    Exact, by the Markov chain of the chart's levels (Brook & Evans 1972): the run length E(s) from the level s is
    1 + p E(s + up) + (1 - p) E(max(0, s - down)), and none from the threshold on. Infinite if p is 0, or the length
    above 1e12, which rounding hides.

    Raises:
        SettingError: p is not in [0, 1].
    """
    if not 0 <= p <= 1:
        raise SettingError(f"p: {p:g} is no rate of refusals; it lies between 0 and 1")
    if p == 0:
        return math.inf
    try:
        length = float(_run_lengths(p, chart)[0])
    except linalg.LinAlgError:  # so nearly singular that no alarm is in sight
        return math.inf
    return length if 0 < length <= LONGEST else math.inf


def refusal_rate(clean: float, attacked: float, share: float) -> float:
    """The rate of refusals where a share of the queries is attacked, by the rates on clean and on attacked ones.

    Raises:
        SettingError: one of them is not in [0, 1].
    """
    for name, value in (("clean", clean), ("attacked", attacked), ("share", share)):
        if not 0 <= value <= 1:
            raise SettingError(f"{name}: {value:g} is no share; it lies between 0 and 1")
    return (1 - share) * clean + share * attacked


def _steps(p0: float, p1: float, denominator: int) -> tuple[int, int]:
    """By how much the sum rises with a refusal and falls with an answer."""
    if not 0 < p0 < 1:
        raise SettingError(
            f"p0: {p0:g} is no rate to compare with; it lies between 0 and 1, and where nothing was refused it is the "
            "upper end of the interval of the rate"
        )
    if not p0 < p1 < 1:
        raise SettingError(f"p1: {p1:g} is no rate to be found; it lies between p0={p0:g} and 1")
    if denominator < 2:
        raise SettingError(f"denominator: {denominator} leaves no fraction between 0 and 1; choose at least 2")
    refused, answered = math.log(p1 / p0), -math.log((1 - p1) / (1 - p0))
    # the sum must fall on average at p0 and rise at p1, so the reference stays between the two rates
    reference = answered / (refused + answered)
    fraction = Fraction(reference).limit_denominator(denominator)
    while not p0 < fraction < p1:
        denominator *= 2
        if denominator > FINEST:
            raise SettingError(f"p1: {p1:g} is too near to p0={p0:g} to be told from it; choose a larger rate")
        fraction = Fraction(reference).limit_denominator(denominator)
    return fraction.denominator - fraction.numerator, fraction.numerator


def _run_lengths(p: float, chart: Chart) -> NDArray[np.float64]:
    """From each level below the threshold: the solution of a banded system of equations."""
    size = chart.threshold
    above, below = min(chart.up, size - 1), min(chart.down, size - 1)
    banded = np.zeros(
        (above + below + 1, size)
    )  # entry (row, column) of the matrix is at [above + row - column, column]
    levels = np.arange(size)
    lower = np.maximum(0, levels - chart.down)
    banded[above] = 1
    np.add.at(banded, (above + levels - lower, lower), p - 1)
    if chart.up < size:
        banded[0, chart.up :] = -p
    return cast("NDArray[np.float64]", linalg.solve_banded((below, above), banded, np.ones(size)))
