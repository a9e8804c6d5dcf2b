"""What defenders and the referee say: inspections, certificates, and estimates with their intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, cast

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from bezoar.errors import DataError

Norm = Literal["inf", "2"]
"""In which norm a change of an image is measured, over pixels in [0, 1]."""


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
class Certificates:
    """What a certifier vouches for, image by image.

    It vouches for the class that it predicts, not for the true one: otherwise a backdoor that is certified and wrong
    would look like one that is refused.

    Attributes:
        predicted: int64 [n], the class that is answered; -1 where the certifier abstains.
        radius: float [n], within which no change of the image alters that class; 0 where nothing is vouched for.
        certified: bool [n], whether the radius is as large as the certifier demands.
        evidence: float [n], what the radius rests on: a lower bound of the margin, or of a class's probability.
        method: int64 [n], which of `methods` gave the radius; -1 where none did.
        methods: names, from cheap to tight.
        norm: in which the radius is measured.
    """

    predicted: Int64[Tensor, "n"]
    radius: Float[Tensor, "n"]
    certified: Bool[Tensor, "n"]
    evidence: Float[Tensor, "n"]
    method: Int64[Tensor, "n"]
    methods: tuple[str, ...]
    norm: Norm

    def __len__(self) -> int:
        return len(self.predicted)

    @staticmethod
    def joined(parts: Sequence[Certificates]) -> Certificates:
        """The certificates of several batches of images, by one certifier, in order; at least one batch."""
        return Certificates(
            torch.cat([part.predicted for part in parts]),
            torch.cat([part.radius for part in parts]),
            torch.cat([part.certified for part in parts]),
            torch.cat([part.evidence for part in parts]),
            torch.cat([part.method for part in parts]),
            parts[0].methods,
            parts[0].norm,
        )


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
