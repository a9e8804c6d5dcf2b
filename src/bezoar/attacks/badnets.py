"""BadNets: a visible patch and a flipped label."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from bezoar.component import register
from bezoar.errors import SettingError
from bezoar.lab import Lab
from bezoar.records import Dataset, Poison, Probe, as_float, as_stored
from bezoar.roles import DataPoisoning, Trigger
from bezoar.seed import Seed
from bezoar.triggers.patch import Patch


@register("badnets", paper="arXiv:1708.06733")
class BadNets(DataPoisoning):
    """Stamp a patch on m images of other classes and label them as the target class (Gu et al.).

    The poisoned images replace their originals; images that already show the target class are not
    eligible, because their label would not change.
    """

    poisons: Annotated[int, Field(ge=1)] = 50
    target: Annotated[int, Field(ge=0)] = 0
    trigger: Trigger = Patch()

    def poison(self, clean: Dataset, lab: Lab, seed: Seed) -> Poison:
        """`poisons` distinct rows, drawn uniformly from the other classes."""
        del lab
        eligible = _other_classes(clean, self.target)
        if self.poisons > len(eligible):
            raise SettingError(
                f"attack.poisons: {self.poisons} is more than the {len(eligible)} images outside the target class; "
                f"use at most {len(eligible)}"
            )
        rows = eligible[(seed / "rows").permutation(len(eligible))[: self.poisons]]
        images = as_stored(self.trigger.stamp(as_float(clean.batch(rows)), rows, seed / "trigger"))
        return Poison(rows, images, torch.full((len(rows),), self.target))

    def probe(self, test: Dataset, memory: Mapping[str, Tensor], lab: Lab, seed: Seed) -> Probe:
        """Every test image of another class, stamped."""
        del memory, lab
        rows = _other_classes(test, self.target)
        images = as_stored(self.trigger.stamp(as_float(test.batch(rows)), rows, seed / "trigger"))
        return Probe(rows, images, torch.full((len(rows),), self.target))


def _other_classes(data: Dataset, target: int) -> Tensor:
    """The rows that do not show the target class, int64."""
    if target >= len(data.classes):
        raise SettingError(
            f"attack.target: there is no class {target}; the data has classes 0 to {len(data.classes) - 1}"
        )
    return (data.labels != target).nonzero()[:, 0]
