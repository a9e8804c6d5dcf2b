"""Is one class unlike the others? Two tests on the scores of the classes of one model."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float
from scipy import stats
from torch import Tensor

MAD_TO_SIGMA = 1.4826


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
    centre = norms.quantile(0.5)
    mad = (norms - centre).abs().quantile(0.5) * MAD_TO_SIGMA
    return (centre - norms) / mad if mad > 0 else norms * 0
