"""Feature Collision: poisons whose features are the target's (Shafahi et al., NeurIPS 2018)."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from jaxtyping import Bool, Float, Int64, UInt8
from pydantic import Field
from torch import Tensor

from bezoar.attacks.crafting import Crafted, FeatureCrafting, Layers, Maps, Pull
from bezoar.component import register
from bezoar.lab import Lab
from bezoar.seed import Seed

SHRINK = 0.2
"""A step is shortened so much when the objective has grown (Schwarzschild et al., 2021)."""


@register("feature_collision", paper="arXiv:1804.00792; arXiv:1905.05897, Eq. 2")
class FeatureCollision(FeatureCrafting):
    """Pull every poison's features to the target's (spec 2): the baseline of Convex Polytope, and its upper bound.

    By default it is the ensemble form, with Convex Polytope's box and steps. ``form: proximal`` is Poison Frogs' own
    algorithm: a gradient step on the features, then a step back towards the base image, which weighs `fidelity` (beta);
    the images start from a watermark of the target, and a step that does not help is shortened.

    Attributes:
        watermark: opacity of the target in the images to begin with.
        fidelity: weight of the mean squared distance to the base image, normalised; only `proximal` has it.
    """

    form: Literal["ensemble", "proximal"] = "ensemble"
    watermark: Annotated[float, Field(ge=0, lt=1)] = 0.0
    fidelity: Annotated[float, Field(ge=0)] = 4.0

    def pull(self, outputs: Layers, wanted: Layers) -> Pull:
        """The squared distances over the target's squared norm, summed over poisons and layers."""
        pulls = [collision(seen, target) for seen, target in zip(outputs, wanted, strict=True)]
        losses = sum((one.losses for one in pulls[1:]), pulls[0].losses)
        return Pull(losses, [one.gradients[0] for one in pulls])

    def begin(
        self,
        bases: UInt8[Tensor, "k c h w"],
        rows: Int64[Tensor, "k"],
        targets: UInt8[Tensor, "t c h w"],
        lab: Lab,
        seed: Seed,
    ) -> Crafted:
        """The watermarked bases, cut to the box."""
        kind = Crafted if self.form == "ensemble" else Frogs
        crafted = kind(self, bases, rows, targets, lab, seed)
        marked = self.watermark * crafted.targets[:, None] + (1 - self.watermark) * crafted.bases
        crafted.pixels = crafted.boxed(marked)
        return crafted


def collision(seen: Maps, wanted: Float[Tensor, "t *d"]) -> Pull:
    """The loss of one layer (Eq. 2 with m = 1)."""
    apart = seen - wanted[:, None]
    squared = wanted.flatten(1).square().sum(1)
    gradient = 2 * apart / squared.view(-1, *[1] * (seen.ndim - 1))
    return Pull(apart.flatten(1).square().sum(1) / squared, [gradient])


class Frogs(Crafted):
    """Forward-backward splitting, with a step of its own for every target."""

    def move(self, pixels: Maps, gradient: Maps, losses: Float[Tensor, "t"]) -> Maps:
        """A gradient step in normalised space, then the proximal step of the distance to the base.

        No published step fits other features, so the first one moves no pixel by more than `lr`.
        """
        assert isinstance(self.attack, FeatureCollision)
        here, base, slope = pixels / self.spread, self.bases / self.spread, gradient * self.spread
        weight = self.attack.fidelity / base[0].numel()
        now = losses + weight * (here - base).square().flatten(1).sum(1)
        if not hasattr(self, "_step"):
            steepest = slope.abs().flatten(1).amax(1).clamp_min(torch.finfo(slope.dtype).tiny)
            self._step, self._last = self.attack.lr / steepest, torch.full_like(losses, torch.inf)
        self._step = torch.where(now > self._last, self._step * SHRINK, self._step)
        self._last = now
        step = self._step.view(-1, 1, 1, 1, 1)
        return (here - step * slope + 2 * step * weight * base) / (1 + 2 * step * weight) * self.spread

    def keep(self, chosen: Bool[Tensor, "t"]) -> None:
        """The steps of the chosen targets."""
        self._step, self._last = self._step[chosen], self._last[chosen]
