"""What certificates are worth together: how many answers are vouched for, how far, and how many of those are right."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from bezoar.measure.estimates import mean, proportion
from bezoar.records import Certificates, Estimate

ROUNDING = 1e-6
"""Of radii, relative: one in single precision lies below the same number in double precision, or above it."""


@dataclass(frozen=True)
class Correctness:
    """What true labels say of certificates.

    Attributes:
        accuracy: share of images whose answer is right, vouched for or not; an abstention is not right.
        right: share that is certified and right (certified accuracy).
        wrong: share that is certified and wrong.
        average_radius: mean radius, where a wrong answer counts 0 (average certified radius of Zhai et al. 2020).
    """

    accuracy: Estimate
    right: Estimate
    wrong: Estimate
    average_radius: Estimate


@dataclass(frozen=True)
class Rates:
    """Certificates of several images, added up.

    Attributes:
        certified: share of images whose answer is certified within the demanded radius.
        abstained: share that gets no answer.
        mean_radius: of all images, right or wrong, 0 where nothing is vouched for.
        correctness: None where true labels are not known.
    """

    certified: Estimate
    abstained: Estimate
    mean_radius: Estimate
    correctness: Correctness | None


def rates(
    found: Certificates, labels: Int64[Tensor, "n"] | None = None, groups: Int64[Tensor, "n"] | None = None
) -> Rates:
    """Shares with Wilson's intervals; images of one group are correlated."""
    right = found.predicted == labels if labels is not None else None
    correctness = None
    if right is not None:
        correctness = Correctness(
            proportion(right, groups),
            proportion(found.certified & right, groups),
            proportion(found.certified & ~right, groups),
            mean((found.radius.double() * right).tolist(), "images"),
        )
    return Rates(
        proportion(found.certified, groups),
        proportion(found.predicted == -1, groups),
        mean(found.radius.double().tolist(), "images"),
        correctness,
    )


def share_within(
    radius: Float[Tensor, "n"], at: Float[Tensor, "r"], counted: Bool[Tensor, "n"] | None = None
) -> Float[Tensor, "r"]:
    """The share of all images that are vouched for within at least each radius: a curve that falls.

    Args:
        radius: of each image; 0 where nothing is vouched for, which counts at no radius, not even 0.
        at: radii at which the curve is read.
        counted: which images count as hits, e.g. those that are right; all by default.
    """
    held = radius if counted is None else torch.where(counted, radius, torch.zeros_like(radius))
    held = held[held > 0].double().sort().values
    below = torch.searchsorted(held, at.double() * (1 - ROUNDING))
    return (len(held) - below).double() / max(1, len(radius))
