"""A small opaque patch in a corner (BadNets)."""

from __future__ import annotations

from math import lcm
from typing import Annotated, Literal

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

Corner = Literal["top_left", "top_right", "bottom_left", "bottom_right"]

APPLE3 = ((1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (1.0, 0.0, 1.0))
"""The paper's black apple on white as point sampling leaves it at 3x3 pixels (spec 2.1)."""


@register("patch", paper="arXiv:1708.06733")
class Patch(Trigger):
    """x~ = (1 - M) x + M P: a square pattern P at full opacity, floor(3/32 w) pixels wide by default.

    The pattern is a black apple on white, in grey levels; at three pixels it is the fixed 3x3
    pattern of the paper's asset, above that a silhouette drawn at the patch's own size.
    """

    size: Annotated[int, Field(ge=1)] | None = None
    corner: Corner = "top_left"

    def stamp(
        self, images: Float[Tensor, "n c h w"], rows: Int64[Tensor, "n"], lab: Lab, seed: Seed
    ) -> Float[Tensor, "n c h w"]:
        """The same patch on every image; nothing is drawn."""
        del rows, lab, seed
        return self.stamp_cells(images, torch.ones(len(images), 1, 1, 1))

    def stamp_cells(self, images: Float[Tensor, "n c h w"], kept: Float[Tensor, "n 1 k k"]) -> Float[Tensor, "n c h w"]:
        """Where cells and pixels do not match (16 cells on 3x3 pixels), the borders are soft.

        Mask and pattern are drawn at a common multiple of both grids and averaged down (spec A8), so
        x~ = x (1 - M) + avg(m P) with M = avg(m).
        """
        height, width = images.shape[2:]
        size = self.size if self.size is not None else max(1, 3 * width // 32)
        if size > min(height, width):
            raise SettingError(
                f"trigger.size: a patch of {size} pixels does not fit images of {height}x{width}; "
                f"at most {min(height, width)} do"
            )
        fine = lcm(size, kept.shape[-1])
        mask = functional.interpolate(kept, (fine, fine), mode="nearest")
        pattern = functional.interpolate(apple(size)[None, None], (fine, fine), mode="nearest")
        share, ink = (functional.avg_pool2d(each, fine // size).to(images) for each in (mask, mask * pattern))
        top = 0 if self.corner.startswith("top") else height - size
        left = 0 if self.corner.endswith("left") else width - size
        stamped = images.clone()
        under = stamped[:, :, top : top + size, left : left + size]
        stamped[:, :, top : top + size, left : left + size] = under * (1 - share) + ink
        return stamped


def apple(size: int) -> Float[Tensor, "s s"]:
    """A black apple on white, grey levels in [0, 1]; drawn eight times too large and averaged down."""
    if size == 3:
        return torch.tensor(APPLE3)
    fine = 8 * size
    axis = (torch.arange(fine) + 0.5) / fine * 2 - 1
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    # two overlapping round cheeks make the body; an ellipse on a slant makes the leaf
    body = ((x.abs() - 0.28) / 0.52) ** 2 + ((y - 0.22) / 0.68) ** 2 < 1
    leaf = ((x - 0.22 + 0.6 * (y + 0.7)) / 0.16) ** 2 + ((y + 0.7) / 0.24) ** 2 < 1
    ink = (body | leaf).float()
    return 1 - functional.avg_pool2d(ink[None, None], 8)[0, 0]
