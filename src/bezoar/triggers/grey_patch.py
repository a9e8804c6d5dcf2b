"""A grey square in a corner, of one level or with a pattern of levels."""

from __future__ import annotations

from typing import Annotated

import torch
from jaxtyping import Float, Int64
from pydantic import Field
from torch import Tensor

from bezoar.component import register
from bezoar.errors import SettingError
from bezoar.lab import Lab
from bezoar.roles import Trigger
from bezoar.seed import Seed
from bezoar.triggers.patch import Corner

SHARE, LEAST = 7, 3
"""A side of a seventh of the image's width: 4 of 28 pixels, 5 of 32; three pixels at least."""


@register("grey_patch")
class GreyPatch(Trigger):
    """A square at full opacity, all of one grey level: the plainest trigger that has an amplitude (bezoar's own).

    Attributes:
        grey: the level, in [0, 1]; images are stored with 8 bits, so it is rounded to a multiple of 1/255 there.
        size: side in pixels; None is a seventh of the image's width, rounded, and 3 at least.
        corner: where.
    """

    grey: Annotated[float, Field(ge=0, le=1)] = 0.5
    size: Annotated[int, Field(ge=1)] | None = None
    corner: Corner = "top_left"

    def stamp(
        self, images: Float[Tensor, "n c h w"], rows: Int64[Tensor, "n"], lab: Lab, seed: Seed
    ) -> Float[Tensor, "n c h w"]:
        """The same square on every image; nothing is drawn."""
        del rows, lab, seed
        return self.paint(images, torch.full((len(images), 1, 1), self.grey))

    def paint(self, images: Float[Tensor, "n c h w"], greys: Float[Tensor, "n a a"]) -> Float[Tensor, "n c h w"]:
        """Each image with a square of levels of its own, alike in all channels: one (a = 1), or one a pixel.

        Raises:
            SettingError: the square is larger than the images.
        """
        height, width = images.shape[2:]
        side = self.side(height, width)
        top = 0 if self.corner.startswith("top") else height - side
        left = 0 if self.corner.endswith("left") else width - side
        painted = images.clone()
        painted[:, :, top : top + side, left : left + side] = greys[:, None].to(images)
        return painted

    def side(self, height: int, width: int) -> int:
        """The square's side on images of that size, in pixels.

        Raises:
            SettingError: it is larger than they are.
        """
        side = self.size if self.size is not None else max(LEAST, round(width / SHARE))
        if side > min(height, width):
            raise SettingError(
                f"trigger.size: a patch of {side} pixels does not fit images of {height}x{width}; "
                f"at most {min(height, width)} do"
            )
        return side
