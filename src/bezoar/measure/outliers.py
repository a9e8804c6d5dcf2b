"""Is one class unlike the others? Tests on the scores of the classes of one model."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float
from scipy import stats
from torch import Tensor

MAD_TO_SIGMA = 1.4826

ALIKE = 1e-4
"""Statistics whose relative spread is smaller are alike, and no distribution can be fitted to them."""


def outlier_p_value(scores: Float[Tensor, "k"]) -> float:
    """Family-wise p-value of the highest score against the others: Grubbs' (1950) one-sided test.

    The k - 1 other scores predict where one more would lie; the highest is compared with Student's
    t at k - 2 degrees of freedom, and Bonferroni corrects for its being the highest of k. With
    fewer than 4 classes there is nothing to compare with, and the answer is 1.
    """
    values = np.sort(scores.double().numpy())
    count = len(values)
    if count < 4:
        return 1.0
    others = values[:-1]
    spread = float(np.std(others, ddof=1)) * math.sqrt(1 + 1 / (count - 1))
    if spread == 0:
        return 1.0 if values[-1] == others[-1] else 0.0
    return min(1.0, count * float(stats.t.sf((values[-1] - float(np.mean(others))) / spread, count - 2)))


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
    if len(values) < 4 or not np.isfinite(values).all() or others[0] <= 0 or np.ptp(others) < ALIKE * others[-1]:
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
