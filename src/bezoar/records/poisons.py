"""What an attacker changes in the training data, and how the referee tests what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from bezoar.errors import DataError
from bezoar.records.images import Dataset, Rows


@dataclass(frozen=True)
class Poison:
    """What an attacker changes in a data set: an overlay, never a copy of the data.

    Attributes:
        rows: int64 [m], distinct rows that are replaced; of points that are `added`, the rows that they were made from.
        images: uint8 [m, c, h, w], what stands there instead.
        labels: int64 [m], the labels that stand there.
        boost: how often each poisoned item occurs in the poisoned data set (b of the paper).
        memory: named tensors that the attack must remember for test time.
        settled: whether the poisoned items were made after augmentation, which leaves them alone from then on.
        added: whether the poisoned items are points of their own at the end of the data, and replace nothing.
    """

    rows: Int64[Tensor, "m"]
    images: UInt8[Tensor, "m c h w"]
    labels: Int64[Tensor, "m"]
    boost: int = 1
    memory: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])
    settled: bool = False
    added: bool = False

    def places(self, clean: int) -> Int64[Tensor, "_"]:
        """Where the poisoned items stand in the poisoned data, of which `clean` is the number of clean ones."""
        last = torch.arange(clean, clean + len(self.rows) * (self.boost if self.added else self.boost - 1))
        return last if self.added else torch.cat([self.rows, last])

    def apply(self, clean: Dataset) -> Dataset:
        """The data set that the victim collects: rows replaced, then repeated b - 1 times at the end, or b if added."""
        if len(self.rows) and int(self.rows.max()) >= len(clean):
            raise DataError(
                f"the poison replaces row {int(self.rows.max())}, but the data set ends at row {len(clean) - 1}"
            )
        # position -> row of the clean data, or -(k + 1) for the k-th poisoned item
        poisoned = -torch.arange(1, len(self.rows) + 1)
        places, items = self.places(len(clean)), poisoned.repeat(self.boost)
        origin = torch.cat([torch.arange(len(clean)), places[places >= len(clean)]])
        origin[places] = items
        labels = torch.cat([clean.labels, clean.labels.new_zeros(len(origin) - len(clean))])
        labels[places] = self.labels.repeat(self.boost)
        groups = clean.groups
        if groups is not None:
            again = self.rows.repeat(self.boost)[places >= len(clean)]
            groups = torch.cat([groups, groups[again]])

        def read(rows: Rows) -> Tensor:
            sources = origin[rows]
            overlaid = sources < 0
            images = clean.batch(sources.where(~overlaid, torch.zeros_like(sources)))
            if overlaid.any():
                images = images.clone()
                images[overlaid] = self.images[-sources[overlaid] - 1]
            return images

        return Dataset(labels, clean.classes, clean.shape, read, groups, origin < 0 if self.settled else None)


@dataclass(frozen=True)
class Probe:
    """How the referee tests an attack. It holds no true labels: the referee reads those from its own test set.

    Attributes:
        rows: int64 [n], rows of the test set that the images were made from.
        images: uint8 [n, c, h, w], those test images with the trigger.
        wanted: int64 [n], the class that the attacker wants for each; -1 if none, so that any error or refusal will do.
    """

    rows: Int64[Tensor, "n"]
    images: UInt8[Tensor, "n c h w"]
    wanted: Int64[Tensor, "n"]
