"""Digits in the wild: real handwriting over real photographs, made from what scikit-learn ships.

A data set that needs no download, is hard enough to be interesting and small enough for a laptop.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from sklearn.datasets import load_digits, load_sample_images
from torch import Tensor
from torch.nn import functional

from bezoar.component import register
from bezoar.records import Dataset, as_stored
from bezoar.roles import DataSource, Splits
from bezoar.seed import Seed

SIDE = 32
TEST_SHARE = 0.25


@register("digits_in_the_wild")
class DigitsInTheWild(DataSource):
    """Handwritten digits, coloured, scaled and shifted, over random crops of two photographs: RGB 32x32, 10 classes.

    The 1,797 source digits and the area of both photographs are divided before anything is drawn:
    no source digit and no region of a photograph occurs in both splits. Each source digit is used
    several times; `Dataset.groups` names it, and intervals treat images of one digit as a cluster.
    Sources: UCI ML hand-written digits; photographs by dany13 (flower) and the scikit-learn
    project's china.jpg, as shipped with scikit-learn.
    """

    generated: ClassVar[bool] = True

    train: Annotated[int, Field(ge=20)] = 5200
    test: Annotated[int, Field(ge=20)] = 1500

    def load(self, folders: tuple[Path, ...]) -> Splits:
        """Compose both splits; always the same images for the same sizes."""
        del folders
        digits = cast(Any, load_digits())
        ink = torch.from_numpy(np.asarray(digits.images, dtype=np.float32)) / 16
        labels = torch.from_numpy(np.asarray(digits.target, dtype=np.int64))
        photographs = [np.asarray(image) for image in cast(Any, load_sample_images()).images]
        seed = Seed(0) / "digits_in_the_wild"
        order = (seed / "split").permutation(len(labels))
        cut = round(TEST_SHARE * len(labels))
        left, right = zip(*(_divide(photograph) for photograph in photographs), strict=True)
        return Splits(
            train=_compose(ink, labels, order[cut:], left, self.train, seed / "train"),
            test=_compose(ink, labels, order[:cut], right, self.test, seed / "test"),
        )


def _divide(photograph: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The left part of a photograph for training and the right for testing, with nothing in common."""
    column = round((1 - TEST_SHARE) * photograph.shape[1])
    return photograph[:, :column], photograph[:, column:]


def _compose(
    ink: Tensor, labels: Tensor, sources: Tensor, regions: tuple[NDArray[np.uint8], ...], count: int, seed: Seed
) -> Dataset:
    """`count` images: the source digits in turn, each over a crop, with size, place and colour of its own."""
    generator = seed.generator()
    chosen = sources.repeat(-(-count // len(sources)))[:count][torch.randperm(count, generator=generator)]
    crops = _crops(regions, count, generator)
    shapes = _place(ink[chosen], generator)
    colour = _contrasting(crops, generator)
    opacity = shapes * _uniform(count, 0.8, 1.0, generator)[:, None, None, None]
    images = crops * (1 - opacity) + colour[:, :, None, None] * opacity
    return Dataset.in_memory(as_stored(images), labels[chosen], tuple(str(digit) for digit in range(10)), chosen)


def _uniform(count: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    return torch.rand(count, generator=generator) * (high - low) + low


def _crops(regions: tuple[NDArray[np.uint8], ...], count: int, generator: torch.Generator) -> Tensor:
    """Random windows of random regions: float [count, 3, 32, 32] in [0, 1]."""
    crops = torch.empty(count, 3, SIDE, SIDE)
    which = torch.randint(len(regions), (count,), generator=generator)
    for number, region in enumerate(regions):
        rows = (which == number).nonzero()[:, 0]
        pixels = torch.from_numpy(region.copy()).permute(2, 0, 1).float() / 255
        top = torch.randint(pixels.shape[1] - SIDE + 1, (len(rows),), generator=generator)
        left = torch.randint(pixels.shape[2] - SIDE + 1, (len(rows),), generator=generator)
        windows = pixels.unfold(1, SIDE, 1).unfold(2, SIDE, 1)
        crops[rows] = windows[:, top, left].transpose(0, 1)
    return crops


def _place(ink: Tensor, generator: torch.Generator) -> Tensor:
    """8x8 digits drawn 20 to 30 pixels tall somewhere inside the image: opacity float [n, 1, 32, 32]."""
    count = len(ink)
    scale = _uniform(count, 20.0, 30.0, generator) / SIDE
    slack = 1 - scale
    shift = (
        torch.stack([_uniform(count, -1.0, 1.0, generator), _uniform(count, -1.0, 1.0, generator)], dim=1)
        * slack[:, None]
    )
    theta = torch.zeros(count, 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = 1 / scale
    theta[:, :, 2] = -shift / scale[:, None]
    grid = functional.affine_grid(theta, [count, 1, SIDE, SIDE], align_corners=False)
    return functional.grid_sample(ink[:, None], grid, align_corners=False)


def _contrasting(crops: Tensor, generator: torch.Generator) -> Tensor:
    """A random colour for each digit, float [n, 3], kept apart from the mean colour of its background."""
    background = crops.mean(dim=(2, 3))
    colour = torch.rand(len(crops), 3, generator=generator)
    # push each colour away from the background's until half the range lies between them on average
    away = torch.where(background.mean(1, keepdim=True) < 0.5, 1.0, 0.0)
    return colour * 0.5 + away * 0.5
