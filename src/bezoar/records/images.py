"""Labelled images: as they are stored, as a model takes them, and the few that a defender trusts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from bezoar.errors import DataError
from bezoar.seed import Seed

Rows = Int64[Tensor, "b"]
Reader = Callable[[Rows], UInt8[Tensor, "b c h w"]]


def as_float(images: UInt8[Tensor, "*n c h w"]) -> Float[Tensor, "*n c h w"]:
    """Stored images as a model takes them: float32 in [0, 1]."""
    return images.float() / 255


def as_stored(images: Float[Tensor, "*n c h w"]) -> UInt8[Tensor, "*n c h w"]:
    """Float images in [0, 1] rounded to the 8 bits in which images are stored."""
    return (images.clamp(0, 1) * 255).round().to(torch.uint8)


@dataclass(frozen=True)
class Dataset:
    """Labelled images, in memory or decoded on demand: one interface.

    Attributes:
        labels: int64 [n], each in 0..len(classes)-1.
        classes: the names of the classes, in label order.
        shape: (channels, height, width).
        reader: rows int64 [b] -> uint8 [b, c, h, w].
        groups: int64 [n] or None. Images with the same number show the same source object and are
            not independent; intervals take that into account.
        settled: bool [n] or None. Images that training takes as they are, without augmentation, because they
            were poisoned after it (`Poison.settled`).
    """

    labels: Int64[Tensor, "n"]
    classes: tuple[str, ...]
    shape: tuple[int, int, int]
    reader: Reader
    groups: Int64[Tensor, "n"] | None = None
    settled: Bool[Tensor, "n"] | None = None

    @staticmethod
    def in_memory(
        images: UInt8[Tensor, "n c h w"],
        labels: Int64[Tensor, "n"],
        classes: tuple[str, ...],
        groups: Int64[Tensor, "n"] | None = None,
    ) -> Dataset:
        """A data set that holds all of its images as one uint8 tensor."""
        if len(images) != len(labels):
            raise DataError(f"{len(images)} images have {len(labels)} labels")
        channels, height, width = images.shape[1:]
        return Dataset(labels, classes, (channels, height, width), images.__getitem__, groups)

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, rows: Rows) -> UInt8[Tensor, "b c h w"]:
        """The images of some rows, in that order."""
        return self.reader(rows)

    def images(self) -> UInt8[Tensor, "n c h w"]:
        """All images: decodes every one of a data set that lives on disk."""
        return self.batch(torch.arange(len(self)))

    def take(self, rows: Rows) -> Dataset:
        """The data set of some rows, in that order, still decoded on demand."""
        groups = None if self.groups is None else self.groups[rows]
        settled = None if self.settled is None else self.settled[rows]
        return replace(
            self,
            labels=self.labels[rows],
            reader=lambda chosen: self.reader(rows[chosen]),
            groups=groups,
            settled=settled,
        )

    def sample(self, count: int, seed: Seed) -> Dataset:
        """`count` rows drawn without replacement."""
        return self.take(seed.permutation(len(self))[:count])

    def loaded(self) -> Dataset:
        """The same data set with its images in memory."""
        return replace(self, reader=self.images().__getitem__)


@dataclass(frozen=True)
class Trusted:
    """The defender's few clean images with true labels: uint8 [n, c, h, w] and int64 [n].

    Raises:
        DataError: a label is outside the classes.
    """

    images: UInt8[Tensor, "n c h w"]
    labels: Int64[Tensor, "n"]
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        outside = self.labels[(self.labels < 0) | (self.labels >= len(self.classes))]
        if len(outside):
            raise DataError(
                f"{len(outside)} trusted images have labels outside the {len(self.classes)} classes, the first is "
                f"{int(outside[0])}; labels count from 0"
            )

    @staticmethod
    def of(dataset: Dataset) -> Trusted:
        """All images of a data set, as trusted ones."""
        return Trusted(dataset.images(), dataset.labels, dataset.classes)

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: Rows) -> Trusted:
        """Some of the trusted images."""
        return Trusted(self.images[rows], self.labels[rows], self.classes)

    def folds(self, count: int, seed: Seed) -> list[tuple[Trusted, Trusted]]:
        """`count` pairs (rest, fold): every image is in exactly one fold, and folds are equally large but for one."""
        parts = seed.permutation(len(self)).tensor_split(count)
        return [(self.take(torch.cat([*parts[:i], *parts[i + 1 :]])), self.take(parts[i])) for i in range(count)]
