"""What votes under Gaussian noise prove: the arithmetic of randomized smoothing (Cohen et al., arXiv:1902.02918)."""

from __future__ import annotations

import math

from scipy import special, stats


def lower_bound(hits: int, draws: int, alpha: float) -> float:
    """A bound in [0, 1] that lies above the true share with probability `alpha` at most: Clopper and Pearson's.

    One-sided and exact (LowerConfBound of the paper): ``beta.ppf(alpha, hits, draws - hits + 1)``, which is 0 without
    hits and alpha^(1/draws) without misses.

    Args:
        hits: how many of the independent draws hit, 0 to `draws`.
        draws: n.
        alpha: in (0, 1).
    """
    if hits == 0:
        return 0.0
    if hits == draws:
        return math.exp(math.log(alpha) / draws)
    return float(stats.beta.ppf(alpha, hits, draws - hits + 1))


def certified_radius(share: float, sigma: float) -> float:
    """How far a smoothed class of at least that share is safe, in L2: sigma * Phi^-1(share), and 0 up to a half.

    Theorem 1 of the paper, with the rest of the votes for one other class (section 3.2.2).

    Args:
        share: a lower bound of the class's probability under noise, in [0, 1).
        sigma: standard deviation of the noise, in pixels of [0, 1].
    """
    return max(0.0, sigma * float(special.ndtri(share)))


def largest_radius(draws: int, alpha: float, sigma: float) -> float:
    """What `draws` votes without one dissent prove: no certificate of that many is larger."""
    return certified_radius(lower_bound(draws, draws, alpha), sigma)


def draws_needed(radius: float, alpha: float, sigma: float) -> int | None:
    """The smallest n that can prove a radius (0: any at all), if all votes agree; None where floats end before.

    alpha^(1/n) >= Phi(radius / sigma), so n >= log(alpha) / log Phi(radius / sigma).
    """
    per_draw = float(special.log_ndtr(radius / sigma))
    if per_draw > -1e-9:  # billions of draws, where a step more or less is below rounding
        return None
    needed = math.ceil(math.log(alpha) / per_draw)
    while not _proves(needed, radius, alpha, sigma):  # rounding, or exactly on a half
        needed += 1
    return needed


def _proves(draws: int, radius: float, alpha: float, sigma: float) -> bool:
    largest = largest_radius(draws, alpha, sigma)
    return largest > 0 and largest >= radius


def majority_p_value(first: int, second: int) -> float:
    """How often a fair coin divides the votes of the two leading classes at least so unevenly; two-sided and exact.

    BinomPValue(first, first + second, 1/2) of PREDICT in the paper.
    """
    return float(stats.binomtest(first, first + second, 0.5).pvalue) if first + second else 1.0
