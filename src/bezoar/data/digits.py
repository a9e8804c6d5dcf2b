"""Plain digits: scikit-learn's 8x8 handwriting, for what must be measured in seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, cast

import numpy as np
import torch
from jaxtyping import Int64
from pydantic import Field
from sklearn.datasets import load_digits
from torch import Tensor

from bezoar.component import register
from bezoar.records import Dataset, as_stored
from bezoar.roles import DataSource, Splits
from bezoar.seed import Seed

TEST = 500
TRAIN = 1297
INK = 16
"""The darkest value of scikit-learn's images."""


@register("digits")
class Digits(DataSource):
    """Handwritten digits as scikit-learn ships them: grey 8x8, 10 classes, 1,297 for training and 500 for testing.

    Source: UCI ML hand-written digits, the 1,797 images of their test part. Values 0 to 16 become 0 to 255, white ink
    on black. The split is one stratified draw and always the same; `train` and `test` take the first so many of each
    half, whose classes come in turn, so a smaller draw is part of every larger one and has nearly the same shares of
    classes. Who wrote an image is not known, so images have no groups.
    """

    train: Annotated[int, Field(ge=20, le=TRAIN)] = TRAIN
    test: Annotated[int, Field(ge=20, le=TEST)] = TEST

    def load(self, folders: tuple[Path, ...]) -> Splits:
        """Scale and divide the images; no files are needed but scikit-learn's own."""
        del folders
        digits = cast(Any, load_digits())
        images = as_stored(torch.from_numpy(np.asarray(digits.images, dtype=np.float32))[:, None] / INK)
        labels = torch.from_numpy(np.asarray(digits.target, dtype=np.int64))
        order = in_turn(labels, Seed(0) / "digits")
        classes = tuple(str(digit) for digit in range(10))
        halves = (order[TEST:][: self.train], order[:TEST][: self.test])
        train, test = (Dataset.in_memory(images[rows], labels[rows], classes) for rows in halves)
        return Splits(train, test)


def in_turn(labels: Int64[Tensor, "n"], seed: Seed) -> Int64[Tensor, "n"]:
    """A random order in which every stretch holds the classes in nearly the shares of the whole."""
    shuffled = seed.permutation(len(labels))
    place = torch.empty(len(labels), dtype=torch.float64)
    for label in labels.unique():
        own = shuffled[labels[shuffled] == label]
        place[own] = (torch.arange(len(own), dtype=torch.float64) + 0.5) / len(own)
    return shuffled[place[shuffled].argsort(stable=True)]
