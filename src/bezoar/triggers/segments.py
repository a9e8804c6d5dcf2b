"""Several small patches of noise, scattered at random places (Trigger Scattering)."""

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


@register("segments", paper="arXiv:2305.09671, Algorithm 7")
class Segments(Trigger):
    """`count` patches of uniform noise, pairwise distinct, each floor(3/32 w) pixels wide unless `size` is given.

    Training images carry a random one of them at a random place; test images carry all of them, at random
    places that do not overlap (spec 2.6). The patches follow from the seed, choices and places from
    the seed and the row.
    """

    count: Annotated[int, Field(ge=1)] = 8
    size: Annotated[int, Field(ge=1)] | None = None

    def stamp(
        self, images: Float[Tensor, "n c h w"], rows: Int64[Tensor, "n"], lab: Lab, seed: Seed
    ) -> Float[Tensor, "n c h w"]:
        """All patches in every image."""
        del lab
        patches = self.patches(images.shape[1], self._side(images), seed)
        stamped = images.clone()
        for number, row in enumerate(rows.tolist()):
            places = _apart(images.shape[2:], self._side(images), self.count, (seed / "places" / row).generator())
            for patch, (top, left) in zip(patches, places, strict=True):
                _paste(stamped[number], patch, top, left)
        return stamped

    def stamp_training(
        self, images: Float[Tensor, "n c h w"], rows: Int64[Tensor, "n"], lab: Lab, seed: Seed
    ) -> Float[Tensor, "n c h w"]:
        """One patch in every image, drawn uniformly, at a uniformly random place."""
        del lab
        side = self._side(images)
        patches = self.patches(images.shape[1], side, seed)
        stamped = images.clone()
        for number, row in enumerate(rows.tolist()):
            generator = (seed / "place" / row).generator()
            chosen = int(torch.randint(self.count, (), generator=generator))
            top, left = _place(images.shape[2:], side, generator)
            _paste(stamped[number], patches[chosen], top, left)
        return stamped

    def patches(self, channels: int, side: int, seed: Seed) -> Float[Tensor, "k c s s"]:
        """The patches: uniform noise in [0, 1], as stored in 8 bits, no two alike."""
        generator = (seed / "patches").generator()
        while True:
            noise = torch.randint(256, (self.count, channels, side, side), generator=generator)
            if len(torch.unique(noise.flatten(1), dim=0)) == self.count:
                return noise.float() / 255

    def _side(self, images: Tensor) -> int:
        """The width of a patch, found to be one of which `count` can always be placed."""
        height, width = images.shape[2:]
        side = self.size if self.size is not None else max(1, 3 * width // 32)
        if side > min(height, width):
            raise SettingError(f"trigger.size: a patch of {side} pixels does not fit images of {height}x{width}")
        # each patch that lies already rules out at most (2 side - 1)^2 places for the next
        room = (height - side + 1) * (width - side + 1)
        most = min((room - 1) // (2 * side - 1) ** 2 + 1, 256 ** (images.shape[1] * side**2))
        if self.count > most:
            raise SettingError(
                f"trigger.count: {self.count} patches of {side} pixels cannot be sure to differ and to find places "
                f"without overlap in images of {height}x{width}; use at most {most}, or a smaller trigger.size"
            )
        return side


def _place(shape: tuple[int, ...], side: int, generator: torch.Generator) -> tuple[int, int]:
    """Row and column of the upper left corner of a patch inside the image, uniformly."""
    height, width = shape
    top = int(torch.randint(height - side + 1, (), generator=generator))
    left = int(torch.randint(width - side + 1, (), generator=generator))
    return top, left


def _apart(shape: tuple[int, ...], side: int, count: int, generator: torch.Generator) -> list[tuple[int, int]]:
    """Places of `count` patches that do not overlap: each drawn until it is clear of those before it."""
    places: list[tuple[int, int]] = []
    while len(places) < count:
        top, left = _place(shape, side, generator)
        if all(abs(top - other) >= side or abs(left - beside) >= side for other, beside in places):
            places.append((top, left))
    return places


def _paste(image: Tensor, patch: Tensor, top: int, left: int) -> None:
    side = patch.shape[-1]
    image[:, top : top + side, left : left + side] = patch.to(image)
