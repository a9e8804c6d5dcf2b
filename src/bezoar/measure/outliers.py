"""Is one class unlike the others? Tests on the scores of the classes of one model."""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float
from scipy import stats
from torch import Tensor

MAD_TO_SIGMA = 1.4826

FEW_CLASSES = 4
"""With fewer classes there is nothing to compare the worst one with."""

SMALLEST = 1e-300
"""Joined p-values are not smaller, so that their logarithm is finite."""

ALIKE = 1e-4
"""Statistics whose relative spread is smaller are alike, and no distribution can be fitted to them."""


def outlier_p_value(scores: Float[Tensor, "k"]) -> float:
    """Family-wise p-value of the highest score against the others: Grubbs' (1950) one-sided test.

    `class_p_values` of the highest, with Bonferroni's correction for its being the highest of k.
    """
    return min(1.0, len(scores) * float(class_p_values(scores).min()))


def class_p_values(scores: Float[Tensor, "k"]) -> Float[Tensor, "k"]:
    """Whether each score lies above what the others predict: one-sided, not corrected for there being k of them.

    The k - 1 other scores predict where one more would lie; each is compared with Student's t at k - 2 degrees of
    freedom. With fewer than 4 classes there is nothing to compare with, and all answers are 1.
    """
    values, count = scores.double(), len(scores)
    if count < FEW_CLASSES:
        return torch.ones(count, dtype=torch.float64)
    p_values = torch.ones(count, dtype=torch.float64)
    for label in range(count):
        others = values[torch.arange(count) != label]
        spread = float(others.std()) * math.sqrt(1 + 1 / (count - 1))
        above = float(values[label] - others.mean())
        if spread > 0:
            p_values[label] = float(stats.t.sf(above / spread, count - 2))
        elif above > 0:
            p_values[label] = 0
    return p_values


def harmonic_mean(p_values: Float[Tensor, "t k"]) -> Float[Tensor, "k"]:
    """One p-value for each class from those of t tests that may depend on each other (Wilson, PNAS 2019).

    It lies between the smallest and t times the smallest, so one test that is sure is enough, and several that are
    half sure help each other. A p-value of 0 gives 0.
    """
    return len(p_values) / (1 / p_values.double()).sum(0)


def joined_p_values(statistics: Float[Tensor, "t k"]) -> Float[Tensor, "k"]:
    """What t statistics of the same k classes say together: `harmonic_mean` of each one's `class_p_values`.

    A p-value of 0, which a class unlike a row of equal ones has, counts as `SMALLEST`.
    """
    return harmonic_mean(torch.stack([class_p_values(one) for one in statistics]).clamp_min(SMALLEST))


def anomaly_index(norms: Float[Tensor, "k"]) -> Float[Tensor, "k"]:
    """Neural Cleanse's index of each class: (median - norm) / (1.4826 MAD), above 2 suspicious.

    Only the left tail counts (Wang et al. 2019, section V-B), so classes with norms above the
    median have a negative index. All indices are 0 where the MAD is.
    """
    return -robust_z(norms)


def gamma_p_value(statistics: Float[Tensor, "k"]) -> float:
    """Family-wise p-value of the largest of k positive statistics (Wang et al., arXiv:2205.06900, section 3).

    A Gamma distribution with location 0 is fitted to the k - 1 others by maximum likelihood; p is the probability
    that the largest of k draws from it reaches the one that was found: 1 - F(max)^k. With fewer than 4 classes, or
    with others that are alike, not positive or not finite, there is nothing to compare with, and the answer is 1.

    The fit is taken for the truth, so the test is liberal: of sets of 20 draws from one Gamma distribution it calls
    about three in ten outliers at level .1 (tested). `outlier_p_value` knows how little k - 1 values say.
    """
    values = np.sort(statistics.double().numpy())
    others = values[:-1]
    if (
        len(values) < FEW_CLASSES
        or not np.isfinite(values).all()
        or others[0] <= 0
        or np.ptp(others) < ALIKE * others[-1]
    ):
        return 1.0
    shape, _, scale = stats.gamma.fit(others, floc=0)
    below = float(stats.gamma.logcdf(values[-1], shape, scale=scale))
    return float(-math.expm1(len(values) * below))


def robust_z(values: Float[Tensor, "k"]) -> Float[Tensor, "k"]:
    """How many standard deviations each value lies above the median, the deviation estimated as 1.4826 MAD.

    All are 0 where more than half of the values are alike.
    """
    centre = values.quantile(0.5)
    mad = (values - centre).abs().quantile(0.5) * MAD_TO_SIGMA
    return (values - centre) / mad if mad > 0 else values * 0
