"""A smooth displacement of all pixels (WaNet)."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from jaxtyping import Float, Int64
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from bezoar.component import register
from bezoar.lab import Lab
from bezoar.roles import Trigger
from bezoar.seed import Seed

REFERENCE_SIDE = 32
"""The images for which WaNet's strength was chosen; `displacement: relative` keeps its share of the image."""


@register("warp", paper="arXiv:2102.10369; arXiv:2305.09671, appendix B")
class Warp(Trigger):
    """x~ = x sampled at clamp((I + s N / H) rho, -1, 1), with one displacement field N for all images.

    N is a k x k grid of control points drawn from U[-1, 1], divided by its mean absolute value and
    upsampled bicubically (spec 2.5). The displacement is about s/2 pixels at every resolution;
    ``displacement: relative`` multiplies it by the image's height over 32. Defaults: the paper's "about
    three times as much noise" as WaNet's s = 0.5 (A12).
    """

    grid: Annotated[int, Field(ge=2)] = 4
    strength: Annotated[float, Field(ge=0)] = 1.5
    rescale: Annotated[float, Field(gt=0)] = 1.0
    displacement: Literal["pixels", "relative"] = "pixels"

    def stamp(
        self, images: Float[Tensor, "n c h w"], rows: Int64[Tensor, "n"], lab: Lab, seed: Seed
    ) -> Float[Tensor, "n c h w"]:
        """Every image warped by the field of this seed. Strength 0 (and rescale 1) gives the images back bit by bit."""
        del rows, lab
        if self.strength == 0 and self.rescale == 1:
            return images.clone()
        grid = self.sampling_grid(images.shape[2], images.shape[3], seed).to(images)
        warped = functional.grid_sample(images, grid.expand(len(images), -1, -1, -1), align_corners=True)
        return warped.clamp(0, 1)

    def sampling_grid(self, height: int, width: int, seed: Seed) -> Float[Tensor, "1 h w 2"]:
        """Where each pixel of the warped image is read: (x, y) in [-1, 1], corners at the centres of corner pixels."""
        control = torch.rand(1, 2, self.grid, self.grid, generator=(seed / "field").generator()) * 2 - 1
        control = control / control.abs().mean()
        field = functional.interpolate(control, (height, width), mode="bicubic", align_corners=True)
        scale = self.strength / height * (height / REFERENCE_SIDE if self.displacement == "relative" else 1.0)
        y, x = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
        identity = torch.stack([x, y], dim=-1)[None]
        return ((identity + scale * field.permute(0, 2, 3, 1)) * self.rescale).clamp(-1, 1)
