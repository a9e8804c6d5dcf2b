"""alpha-CROWN: the slopes below the rectifiers are optimised (Xu et al., arXiv:2011.13824)."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from itertools import repeat

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bezoar.bounds.intervals import Region
from bezoar.bounds.linear import Relaxation, lower_bounds
from bezoar.bounds.network import Network
from bezoar.seed import Seed
from bezoar.training.batches import Batch
from bezoar.training.steps import steps

RATE = 0.1
"""Of Adam, for slopes in [0, 1]."""


class Slopes(nn.Module):
    """One slope for each rectifier, image and wanted function; each is between 0 and 1 after every step."""

    def __init__(self, relaxations: Mapping[int, Relaxation], rows: int) -> None:
        super().__init__()
        self.relaxations = dict(relaxations)
        self.each = nn.ParameterDict(
            {
                str(number): one.lower.detach()[:, None].expand(-1, rows, *one.lower.shape[1:]).clone()
                for number, one in relaxations.items()
            }
        )

    def chosen(self) -> dict[int, Relaxation]:
        """The rectifiers' lines with these slopes; a rectifier of known sign keeps its own."""
        return {
            number: replace(one, lower=torch.where(one.unstable[:, None], self.each[str(number)], one.lower[:, None]))
            for number, one in self.relaxations.items()
        }

    def project(self) -> None:
        """Back into [0, 1], where every slope gives a sound bound."""
        with torch.no_grad():
            for slopes in self.each.values():
                slopes.clamp_(0, 1)


def optimised(
    network: Network,
    coefficients: Float[Tensor, "n s d"],
    relaxations: Mapping[int, Relaxation],
    region: Region,
    *,
    count: int,
) -> Float[Tensor, "n s"]:
    """Lower bounds of linear functions of the features, the best of `count` Adam steps from CROWN's slopes.

    Every step's bounds are sound, so that of each function the best is kept; none is below CROWN's. The intervals of
    the rectifiers' inputs stay those of CROWN.

    Args:
        network: with weights that want no gradient.
        coefficients: the functions.
        relaxations: by CROWN.
        region: of the normalised images.
        count: steps.
    """
    last = len(network.nodes) - 1
    slopes = Slopes(relaxations, coefficients.shape[1])
    best = lower_bounds(network, last, coefficients, relaxations, region)
    if not len(slopes.each):
        return best

    def objective(slopes: Slopes, _: Batch) -> Tensor:
        nonlocal best
        found = lower_bounds(network, last, coefficients, slopes.chosen(), region)
        best = torch.maximum(best, found.detach())
        return -found.sum()

    place = torch.arange(len(coefficients))
    nothing = Batch(region.lower, place.to(region.lower.device), place)
    taken = steps(
        slopes,
        repeat(nothing, count),
        objective,
        torch.optim.Adam(slopes.parameters(), RATE),
        seed=Seed(0, ("alpha",)),
        after=lambda slopes, _: slopes.project(),
    )
    with torch.enable_grad():
        deque(taken, maxlen=0)
    with torch.no_grad():
        objective(slopes, nothing)
    return best
