"""A reflection of the image in itself, as in a pane of thick glass (Refool)."""

from __future__ import annotations

from typing import Annotated

from jaxtyping import Float, Int64
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from bezoar.component import register
from bezoar.errors import SettingError
from bezoar.lab import Lab
from bezoar.roles import Trigger
from bezoar.seed import Seed

GAMMA = 2.2
"""Stored values are brightness to the power 1 / 2.2; light adds up linearly."""


@register("ghost", paper="Liu et al., ECCV 2020; arXiv:2305.09671, appendix B")
class Ghost(Trigger):
    """x~ = [(1 - alpha) u + alpha g]^(1/2.2), where u = x^2.2 and g is u seen twice, `offset` pixels apart.

    g = a r1 + (1 - a) r2: r1 is the image padded with black at the right and bottom, r2 at the left and
    top; what both cover is kept and resized to the image (spec 2.4: ghosting of the image itself, A11).
    `intensity` is alpha, `weight` a; the offset is floor(3/32 w) pixels unless it is given.
    """

    intensity: Annotated[float, Field(ge=0, le=1)] = 1.0
    weight: Annotated[float, Field(ge=0, le=1)] = 0.5
    offset: Annotated[int, Field(ge=1)] | None = None

    def stamp(
        self, images: Float[Tensor, "n c h w"], rows: Int64[Tensor, "n"], lab: Lab, seed: Seed
    ) -> Float[Tensor, "n c h w"]:
        """The same ghost in every image; nothing is drawn. Intensity 0 gives the images back bit by bit."""
        del rows, lab, seed
        if self.intensity == 0:
            return images.clone()
        height, width = images.shape[2:]
        offset = self.offset if self.offset is not None else max(1, 3 * width // 32)
        if 2 * offset >= min(height, width):
            raise SettingError(
                f"trigger.offset: a ghost {offset} pixels apart does not fit images of {height}x{width}; "
                f"use less than {min(height, width) / 2:g}"
            )
        light = images**GAMMA
        first = functional.pad(light, (0, offset, 0, offset))
        second = functional.pad(light, (offset, 0, offset, 0))
        both = (self.weight * first + (1 - self.weight) * second)[..., offset:-offset, offset:-offset]
        ghost = functional.interpolate(both, (height, width), mode="bicubic", align_corners=False).clamp(0, 1)
        mixed = (1 - self.intensity) * light + self.intensity * ghost
        return mixed.clamp(0, 1) ** (1 / GAMMA)
