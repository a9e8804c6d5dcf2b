"""What travels between players and referee: frozen records of tensors with documented shapes and units.

Images at rest are uint8 in [0, 255] with shape [n, c, h, w]; images on their way into a model are
float in [0, 1]. Labels are int64.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import cast

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
class Poison:
    """What an attacker changes in a data set: an overlay, never a copy of the data.

    Attributes:
        rows: int64 [m], distinct rows that are replaced.
        images: uint8 [m, c, h, w], what stands there instead.
        labels: int64 [m], the labels that stand there.
        boost: how often each poisoned item occurs in the poisoned data set (b of the paper).
        memory: named tensors that the attack must remember for test time.
        settled: whether the poisoned items were made after augmentation, which leaves them alone from then on.
    """

    rows: Int64[Tensor, "m"]
    images: UInt8[Tensor, "m c h w"]
    labels: Int64[Tensor, "m"]
    boost: int = 1
    memory: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])
    settled: bool = False

    def apply(self, clean: Dataset) -> Dataset:
        """The data set that the victim collects: rows replaced, then repeated b - 1 times at the end."""
        if len(self.rows) and int(self.rows.max()) >= len(clean):
            raise DataError(
                f"the poison replaces row {int(self.rows.max())}, but the data set ends at row {len(clean) - 1}"
            )
        # position -> row of the clean data, or -(k + 1) for the k-th poisoned item
        origin = torch.arange(len(clean))
        poisoned = -torch.arange(1, len(self.rows) + 1)
        origin[self.rows] = poisoned
        origin = torch.cat([origin, poisoned.repeat(self.boost - 1)])
        labels = clean.labels.clone()
        labels[self.rows] = self.labels
        labels = torch.cat([labels, self.labels.repeat(self.boost - 1)])
        groups = clean.groups
        if groups is not None:
            groups = torch.cat([groups, groups[self.rows].repeat(self.boost - 1)])

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
        wanted: int64 [n], the class that the attacker wants for each.
    """

    rows: Int64[Tensor, "n"]
    images: UInt8[Tensor, "n c h w"]
    wanted: Int64[Tensor, "n"]


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


@dataclass(frozen=True)
class Tier:
    """What one detector of several saw.

    Attributes:
        kind: the detector.
        suspect: the class that it finds most suspicious.
        p_value: of that class against the others, corrected for its being the worst of k; None if it says nothing.
        silence: why it says nothing, or empty.
    """

    kind: str
    suspect: int
    p_value: float | None
    silence: str = ""


@dataclass(frozen=True)
class Inspection:
    """What a detector says of a model, class by class; the score of the model is the maximum.

    Attributes:
        scores: float [k], higher is more suspicious; the unit is the detector's own.
        triggers: float [k, c, h, w] or None: the reconstructed triggers in pixel space.
        masks: float [k, 1, h, w] in [0, 1] or None. With masks a trigger replaces the pixels it
            covers; without, it is added.
        evidence: further numbers per class, e.g. the norm of its trigger, float [k] each.
        abstained: empty, or why the scores say nothing about this model.
        p_value: of the most suspicious class against the others, corrected for its being the worst of k, where the
            detector has one of its own; None leaves that to a test of outliers on the scores.
        tiers: what each part saw, from cheap to thorough, if several detectors were asked.
    """

    scores: Float[Tensor, "k"]
    triggers: Float[Tensor, "k c h w"] | None = None
    masks: Float[Tensor, "k 1 h w"] | None = None
    evidence: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])
    abstained: str = ""
    p_value: float | None = None
    tiers: tuple[Tier, ...] = ()

    @property
    def score(self) -> float:
        """The score of the model: that of its most suspicious class."""
        return float(self.scores.max())

    @property
    def suspect(self) -> int:
        """The class with the highest score."""
        return int(self.scores.argmax())

    @property
    def thin(self) -> bool:
        """Whether the triggers are patterns that lie thinly over the whole image rather than marks that replace it."""
        return self.masks is not None and float(self.masks.max()) < 0.5

    def stamp(self, images: Float[Tensor, "n c h w"], label: int) -> Float[Tensor, "n c h w"]:
        """Images in [0, 1] with the reconstructed trigger of one class."""
        if self.triggers is None:
            raise DataError("this detector reconstructs no triggers")
        trigger = self.triggers[label].to(images)
        if self.masks is None:
            return (images + trigger).clamp(0, 1)
        mask = self.masks[label].to(images)
        return images * (1 - mask) + trigger * mask


@dataclass(frozen=True)
class Estimate:
    """A measured number. None leaves bezoar without its 95 % interval and its n.

    Attributes:
        value: the estimate.
        low, high: ends of the 95 % interval.
        n: how many units it rests on.
        unit: of what: "images", "models", ...
    """

    value: float
    low: float
    high: float
    n: int
    unit: str

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"

    def as_json(self) -> dict[str, float | int | str]:
        """The five fields as plain values."""
        return {"value": self.value, "low": self.low, "high": self.high, "n": self.n, "unit": self.unit}

    @staticmethod
    def from_json(fields: Mapping[str, object]) -> Estimate:
        """The inverse of `as_json`."""
        value, low, high = (float(cast(float, fields[name])) for name in ("value", "low", "high"))
        return Estimate(value, low, high, int(cast(int, fields["n"])), str(fields["unit"]))
