"""A picture blended over the whole image (Blend, adaptive Blend)."""

from __future__ import annotations

from math import gcd
from typing import Annotated

import torch
from jaxtyping import Float, Int64
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from bezoar.component import register
from bezoar.errors import SettingError
from bezoar.lab import Lab
from bezoar.roles import Trigger
from bezoar.seed import Seed
from bezoar.triggers.patch import apple


@register("blend", paper="arXiv:1712.05526; arXiv:2305.09671, appendix B")
class Blend(Trigger):
    """x~ = x + alpha G (P - x): a black apple on white as large as the image, blended with `opacity` alpha.

    G is 1 everywhere, but for cells that an attack leaves out.
    """

    opacity: Annotated[float, Field(gt=0, le=1)] = 0.3

    def stamp(
        self, images: Float[Tensor, "n c h w"], rows: Int64[Tensor, "n"], lab: Lab, seed: Seed
    ) -> Float[Tensor, "n c h w"]:
        """The same picture over every image; nothing is drawn."""
        del rows, lab, seed
        return self.stamp_cells(images, torch.ones(len(images), 1, 1, 1))

    def stamp_cells(self, images: Float[Tensor, "n c h w"], kept: Float[Tensor, "n 1 k k"]) -> Float[Tensor, "n c h w"]:
        """Black pixels of the picture are blended like all others; pixels of a cell that is left out stay untouched."""
        height, width = images.shape[2:]
        cells = kept.shape[-1]
        if height % cells or width % cells:
            raise SettingError(
                f"attack.cells: images of {height}x{width} cannot be divided into {cells} x {cells} equal cells; "
                f"use a divisor of {gcd(height, width)}"
            )
        side = max(height, width)
        picture = functional.interpolate(apple(side)[None, None], (height, width), mode="area")
        mask = functional.interpolate(kept, (height, width), mode="nearest").to(images)
        return images + self.opacity * mask * (picture.to(images) - images)
