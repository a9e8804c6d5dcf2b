"""What attacks that stamp a trigger share: which rows they may take, how many, and how a test image is attacked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Annotated, ClassVar, Literal

import torch
from jaxtyping import Float, Int64, UInt8
from pydantic import Field
from torch import Tensor

from bezoar.errors import SettingError
from bezoar.lab import Lab
from bezoar.records import Dataset, Poison, Probe, as_float, as_stored
from bezoar.roles import DataPoisoning, Surrogate, Trigger
from bezoar.seed import Seed
from bezoar.training.augment import augment
from bezoar.training.sgd import Sgd

Rows = Int64[Tensor, "_"]
Stamp = Callable[[Float[Tensor, "n c h w"], Int64[Tensor, "n"]], Float[Tensor, "n c h w"]]

AT_ONCE = 512
"""So many images are stamped together; a test set of large photographs does not fit into memory as floats."""


class Stamping(DataPoisoning):
    """Stamps `poisons` images of other classes and labels them as the target class; they replace their originals.

    Images that show the target class already are not eligible, because their label would not change. The
    trigger is stamped on the stored image, before the victim's augmentation, which then moves and mirrors it:
    what whoever uploads images can do. ``stage: post_augment_frozen`` stamps each image after one draw of that
    augmentation, and training takes it as it is from then on, as the released code of "Pick your Poison" does
    (spec A5, F3). What is random in a trigger follows from a secret key, drawn when the data are poisoned and
    remembered for the test images.
    """

    added: ClassVar[frozenset[str]] = frozenset({"stage"})

    poisons: Annotated[int, Field(ge=1)] = 50
    target: Annotated[int, Field(ge=0)] = 0
    trigger: Trigger
    stage: Literal["pre_augment", "post_augment_frozen"] = "pre_augment"

    @property
    def wanted_model(self) -> Surrogate | None:
        """What the trigger is made with."""
        return self.trigger.wanted_model

    @property
    def reads_recipe(self) -> bool:
        """Where the trigger is stamped after the victim's augmentation."""
        return self.stage != "pre_augment"

    def stamp_training(
        self, images: Float[Tensor, "n c h w"], rows: Int64[Tensor, "n"], lab: Lab, key: Seed
    ) -> Float[Tensor, "n c h w"]:
        """What poisoned images carry; `probe` stamps the full trigger."""
        return self.trigger.stamp_training(images, rows, lab, key)

    def eligible(self, data: Dataset) -> Rows:
        """The rows that may be poisoned: those of all other classes."""
        return outside_class(data, self.target)

    def poison(self, clean: Dataset, lab: Lab, seed: Seed) -> Poison:
        """`poisons` distinct rows, drawn uniformly from the eligible ones."""
        rows = draw(self.eligible(clean), self.poisons, seed / "rows")
        secret = secret_of(seed)
        stamp = self._in_stage(lambda images, rows: self.stamp_training(images, rows, lab, key_of(secret)), lab, seed)
        images, labels = stamped(clean, rows, stamp), torch.full((len(rows),), self.target)
        return Poison(rows, images, labels, memory={"key": secret}, settled=self.reads_recipe)

    def probe(self, test: Dataset, memory: Mapping[str, Tensor], lab: Lab, seed: Seed) -> Probe:
        """Every test image of another class, with the full trigger."""
        del seed
        return probe_of(test, self.target, self.trigger, lab, key_of(memory["key"]))

    def _in_stage(self, stamp: Stamp, lab: Lab, seed: Seed) -> Stamp:
        """The stamp, on images that have been augmented once where the stage asks for that."""
        if not self.reads_recipe:
            return stamp
        if not isinstance(lab.trainer, Sgd):
            raise SettingError(f"attack.stage: {self.stage!r} needs a victim whose trainer is 'sgd'")
        augmentation, draws = lab.trainer.augmentation, seed / "augmentation"

        def after(images: Tensor, rows: Tensor) -> Tensor:
            each = zip(images.split(1), rows.tolist(), strict=True)
            augmented = [augment(image, augmentation, (draws / row).generator()) for image, row in each]
            return stamp(torch.cat(augmented), rows)

        return after


class CleanLabel(Stamping):
    """Stamps images of the target class itself and leaves their labels alone, so that nobody sees a wrong label.

    `boost` is how often each poisoned image occurs in the poisoned data (b of "Pick your Poison").
    """

    poisons: Annotated[int, Field(ge=1)] = 500
    boost: Annotated[int, Field(ge=1)] = 1

    def eligible(self, data: Dataset) -> Rows:
        """The rows of the target class."""
        return of_class(data, self.target)

    def poison(self, clean: Dataset, lab: Lab, seed: Seed) -> Poison:
        """`poisons` distinct rows of the target class, each `boost` times."""
        poison = super().poison(clean, lab, seed)
        return replace(poison, boost=self.boost)


def of_class(data: Dataset, target: int) -> Rows:
    """The rows that show the target class.

    Raises:
        SettingError: there is no such class.
    """
    _require_class(data, target)
    return (data.labels == target).nonzero()[:, 0]


def outside_class(data: Dataset, target: int) -> Rows:
    """The rows that do not show the target class.

    Raises:
        SettingError: there is no such class.
    """
    _require_class(data, target)
    return (data.labels != target).nonzero()[:, 0]


def draw(eligible: Rows, count: int, seed: Seed) -> Rows:
    """`count` of the eligible rows, uniformly and without replacement.

    Raises:
        SettingError: there are not so many.
    """
    if count > len(eligible):
        raise SettingError(
            f"attack.poisons: {count} is more than the {len(eligible)} images that this attack may take; "
            f"use at most {len(eligible)}"
        )
    return eligible[seed.permutation(len(eligible))[:count]]


def secret_of(seed: Seed) -> Int64[Tensor, "1"]:
    """The secret of a trigger as an attack remembers it."""
    return torch.tensor([(seed / "trigger").integer()])


def key_of(secret: Int64[Tensor, "1"]) -> Seed:
    """The stream from which everything random in a trigger is drawn, at training and at test time."""
    return Seed(int(secret))


def probe_of(test: Dataset, target: int, trigger: Trigger, lab: Lab, key: Seed) -> Probe:
    """Every test image of another class, with the full trigger."""
    rows = outside_class(test, target)
    images = stamped(test, rows, lambda images, rows: trigger.stamp(images, rows, lab, key))
    return Probe(rows, images, torch.full((len(rows),), target))


def stamped(data: Dataset, rows: Rows, stamp: Stamp) -> UInt8[Tensor, "_ c h w"]:
    """Some images of a data set with a trigger, as they are stored; a part of them at a time."""
    parts = [as_stored(stamp(as_float(data.batch(part)), part)) for part in rows.split(AT_ONCE)]
    return torch.cat(parts)


def _require_class(data: Dataset, target: int) -> None:
    if target >= len(data.classes):
        raise SettingError(
            f"attack.target: there is no class {target}; the data has classes 0 to {len(data.classes) - 1}"
        )
