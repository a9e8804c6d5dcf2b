"""Estimates with 95 % intervals that hold at the edges: none collapses at 0, at 1 or at perfect separation."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from jaxtyping import Bool, Int64
from numpy.typing import NDArray
from scipy import optimize, stats
from torch import Tensor

from bezoar.records import Estimate

Z = float(stats.norm.ppf(0.975))


def proportion(hits: Bool[Tensor, "n"], groups: Int64[Tensor, "n"] | None = None, unit: str = "images") -> Estimate:
    """A share of images (or of another unit), with Wilson's score interval (Wilson 1927).

    Images of one group are correlated. The interval is then Wilson's at the effective number of
    images n / deff, where deff is the ratio of the cluster-robust to the binomial variance
    (Korn & Graubard 1998), never below 1.
    """
    count = len(hits)
    if count == 0:
        return Estimate(math.nan, 0.0, 1.0, 0, unit)
    value = float(hits.double().mean())
    low, high = wilson(value, count / _design_effect(hits, groups))
    return Estimate(value, low, high, count, unit)


def wilson(value: float, n: float | int) -> tuple[float, float]:
    """Wilson's score interval for a share of n."""
    centre = (value + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z / (1 + Z**2 / n) * math.sqrt(value * (1 - value) / n + Z**2 / (4 * n**2))
    # at 0 and 1 rounding may put an end beyond the value
    return max(0.0, min(value, centre - half)), min(1.0, max(value, centre + half))


def _design_effect(hits: Tensor, groups: Tensor | None) -> float:
    share = float(hits.double().mean())
    if groups is None or share in (0.0, 1.0):
        return 1.0 if groups is None else len(hits) / len(torch.unique(groups))
    _, index = torch.unique(groups, return_inverse=True)
    totals = torch.zeros(int(index.max()) + 1, dtype=torch.float64).index_add(0, index, hits.double() - share)
    clusters = len(totals)
    if clusters == 1:
        return float(len(hits))
    robust = clusters / (clusters - 1) * float((totals**2).sum())
    return max(1.0, robust / (len(hits) * share * (1 - share)))


def paired_loss(
    before: Bool[Tensor, "n"], after: Bool[Tensor, "n"], groups: Int64[Tensor, "n"] | None = None
) -> Estimate:
    """How much accuracy was lost on the same images: share right before minus share right after.

    The interval is Agresti & Min's (2005), which adds a half to each cell of the 2x2 table;
    with groups the variance is inflated by their design effect.
    """
    count = len(before)
    lost, won = int((before & ~after).sum()), int((~before & after).sum())
    value = (lost - won) / count
    padded = count + 2
    b, c = (lost + 0.5) / padded, (won + 0.5) / padded
    deff = _paired_design_effect(before, after, groups)
    half = Z * math.sqrt(max(0.0, b + c - (b - c) ** 2) / padded * deff)
    return Estimate(value, max(-1.0, min(value, b - c - half)), min(1.0, max(value, b - c + half)), count, "images")


def _paired_design_effect(before: Tensor, after: Tensor, groups: Tensor | None) -> float:
    if groups is None:
        return 1.0
    difference = before.double() - after.double()
    centred = difference - difference.mean()
    plain = float((centred**2).sum())
    if plain == 0:
        return len(before) / len(torch.unique(groups))
    _, index = torch.unique(groups, return_inverse=True)
    totals = torch.zeros(int(index.max()) + 1, dtype=torch.float64).index_add(0, index, centred)
    return max(1.0, float((totals**2).sum()) / plain)


def mean(values: Sequence[float], unit: str = "models") -> Estimate:
    """A mean over independent runs, with Student's interval.

    One run has no spread: its interval is the whole line (-inf to inf).
    """
    count = len(values)
    value = float(np.mean(values)) if count else math.nan
    if count < 2:
        return Estimate(value, -math.inf, math.inf, count, unit)
    half = float(stats.t.ppf(0.975, count - 1) * np.std(values, ddof=1) / math.sqrt(count))
    return Estimate(value, value - half, value + half, count, unit)


Groups = tuple[Sequence[int], Sequence[int]]
"""A number for each poisoned and each clean model; models with the same one, e.g. twins, are not independent."""


def auc(
    poisoned: Sequence[float], clean: Sequence[float], groups: Groups | None = None, *, unit: str = "models"
) -> Estimate:
    """ROC AUC of scores over two populations, e.g. of models: P[poisoned > clean] + P[equal] / 2 (Mann-Whitney).

    The interval is the score-type one of Newcombe (2006, method 5): it inverts the Hanley-McNeil
    variance at the hypothesised AUC and so stays honest at perfect separation. With groups that variance is
    multiplied by their design effect (Obuchowski 1997), never below 1; where all models are in order, which
    shows no effect, by that of groups of copies.
    """
    m, n = len(poisoned), len(clean)
    if not m or not n:
        return Estimate(math.nan, 0.0, 1.0, m + n, unit)
    value = float(_wins(poisoned, clean).sum()) / (m * n)
    effect = 1.0 if groups is None else _shared(_influences(poisoned, clean)[None], groups).effect

    def excess(theta: float) -> float:
        inflated = (m + n) / 2 - 1
        variance = effect * theta * (1 - theta) / (m * n)
        variance *= 1 + inflated * ((1 - theta) / (2 - theta) + theta / (1 + theta))
        return (value - theta) ** 2 - Z**2 * variance

    # at 0 and 1 the variance vanishes with the difference, so the bracket stops short of them
    edge = 1e-12
    low = _root(excess, 0.0, min(value, 1 - edge)) if value > 0 else 0.0
    high = _root(excess, max(value, edge), 1.0) if value < 1 else 1.0
    return Estimate(value, low, high, m + n, unit)


def _wins(ours: Sequence[float], theirs: Sequence[float]) -> NDArray[np.float64]:
    """For each of our scores how many of theirs lie below it, equal ones counting half; found by sorting."""
    ranked = np.sort(np.asarray(theirs, dtype=np.float64))
    below, reached = (np.searchsorted(ranked, np.asarray(ours, dtype=np.float64), side) for side in ("left", "right"))
    return (below + reached) / 2


def _root(function: Callable[[float], float], low: float, high: float) -> float:
    """Where a function that changes sign between low and high is zero (Brent's method)."""
    return cast(float, optimize.brentq(function, low, high))


def auc_difference(
    first: tuple[Sequence[float], Sequence[float]], second: tuple[Sequence[float], Sequence[float]], groups: Groups
) -> Estimate:
    """ROC AUC of one detector minus that of another on the same models, paired.

    Each model has an influence on either AUC (DeLong et al. 1988); those of one group are added up before their
    covariance is taken, as in Obuchowski (1997). The interval joins the detectors' own (`auc`) by the method of
    variance estimates recovery (Zou & Donner 2008), so that it does not collapse where both separate perfectly.

    Args:
        first: scores of the poisoned and of the clean models by one detector.
        second: by the other, in the same order.
        groups: of the poisoned and of the clean models.
    """
    one, other = auc(*first, groups), auc(*second, groups)
    count = len(first[0]) + len(first[1])
    if not first[0] or not first[1]:
        return Estimate(math.nan, -1.0, 1.0, count, "models")
    shared = _shared(np.stack([_influences(*first), _influences(*second)]), groups).correlation
    value = one.value - other.value
    low = _joined(one.value - one.low, other.high - other.value, shared)
    high = _joined(one.high - one.value, other.value - other.low, shared)
    return Estimate(value, max(-1.0, value - low), min(1.0, value + high), count, "models")


@dataclass(frozen=True)
class _Shared:
    """What groups do to the variance of the first of some AUCs, and how the first and the last vary together."""

    effect: float
    correlation: float


def _shared(influences: NDArray[np.float64], groups: Groups) -> _Shared:
    """Variance and covariance of AUCs from each model's influence on them, one line an AUC."""
    index = np.unique(np.concatenate([np.asarray(part) for part in groups]), return_inverse=True)[1]
    models, clusters = len(index), int(index.max()) + 1
    together = np.stack([np.bincount(index, row, clusters) for row in influences])
    products = together @ together.T * (clusters / max(1, clusters - 1))
    plain = float((influences[0] ** 2).sum()) * (models / (models - 1))
    effect = products[0, 0] / plain if plain > 0 and clusters > 1 else models / clusters
    product = float(products[0, 0] * products[-1, -1])
    correlation = float(products[0, -1]) / math.sqrt(product) if product > 0 else 0.0
    return _Shared(max(1.0, float(effect)), correlation)


def _influences(poisoned: Sequence[float], clean: Sequence[float]) -> NDArray[np.float64]:
    """How much each model, poisoned ones first, moves the ROC AUC; they add up to 0."""
    m, n = len(poisoned), len(clean)
    won, lost = _wins(poisoned, clean), m - _wins(clean, poisoned)
    area = won.sum() / (m * n)
    return np.concatenate([(won / n - area) / m, (lost / m - area) / n])


def _joined(one: float, other: float, correlation: float) -> float:
    """Half-width of a difference, from the half-widths of its terms on the sides that matter."""
    return math.sqrt(max(0.0, one**2 + other**2 - 2 * correlation * one * other))
