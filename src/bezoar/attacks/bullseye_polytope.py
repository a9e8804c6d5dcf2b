"""Bullseye Polytope: poisons whose features have the target's as their mean (Aghakhani et al., EuroS&P 2021)."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from pydantic import Field, model_validator
from torch import Tensor

from bezoar.attacks.crafting import FeatureCrafting, Layers, Pull
from bezoar.component import register

TINY = 1e-12


@register("bullseye_polytope", paper="arXiv:2005.00191")
class BullseyePolytope(FeatureCrafting):
    """Move the mean of the poisons' features onto the target's (spec 2): the target in the middle, not at an edge.

    The distance is not squared. Of a feature map the distance is taken over channels at each place, and averaged over
    places; several layers are averaged.

    Attributes:
        draws: realisations of dropout that one step averages the features over (BP, BP-3x, BP-5x).
        weights: coefficients other than 1/k, which sum to one.
    """

    averaged: ClassVar[bool] = True

    draws: Annotated[int, Field(ge=1)] = 1
    weights: tuple[Annotated[float, Field(ge=0)], ...] | None = None

    @model_validator(mode="after")
    def _weights_fit(self) -> BullseyePolytope:
        if self.weights is not None and (len(self.weights) != self.poisons or abs(sum(self.weights) - 1) > 1e-6):
            raise ValueError(f"weights: {self.poisons} numbers that sum to one are needed, not {self.weights}")
        return self

    @property
    def realisations(self) -> int:
        """All draws."""
        return self.draws

    def pull(self, outputs: Layers, wanted: Layers) -> Pull:
        """The distance of the mean over the target's norm, averaged over places and layers."""
        count = outputs[0].shape[1]
        chosen = torch.tensor(self.weights or [1 / count] * count).to(outputs[0])
        losses = torch.zeros(len(outputs[0])).to(outputs[0])
        gradients: list[Tensor] = []
        for seen, target in zip(outputs, wanted, strict=True):
            # channels are first, and a vector has one place
            rest = torch.einsum("k,tkd...->td...", chosen, seen) - target
            length = rest.flatten(2).norm(dim=1) if rest.ndim > 2 else rest.norm(dim=1, keepdim=True)
            norm = target.flatten(2).norm(dim=1) if target.ndim > 2 else target.norm(dim=1, keepdim=True)
            norm = norm.clamp_min(TINY)
            losses += (length / norm).mean(1) / len(outputs)
            scale = 1 / (length.clamp_min(TINY) * norm * length.shape[1] * len(outputs))
            slope = rest.flatten(2) * scale[:, None] if rest.ndim > 2 else rest * scale
            gradients.append((chosen.view(1, -1, 1, 1) * slope.view(len(rest), 1, rest.shape[1], -1)).view_as(seen))
        return Pull(losses, gradients)
