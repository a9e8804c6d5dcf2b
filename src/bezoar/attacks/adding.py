"""What attacks on certifiers share: points that are added, and a grey patch that test images of every class carry."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import torch
from jaxtyping import Float, Int64, UInt8
from pydantic import Field
from torch import Tensor

from bezoar.attacks.stamping import AT_ONCE, Rows
from bezoar.errors import SettingError
from bezoar.lab import Lab
from bezoar.records import Dataset, Poison, Probe, as_float, as_stored
from bezoar.roles import DataPoisoning
from bezoar.seed import Seed
from bezoar.triggers.grey_patch import GreyPatch


class Adding(DataPoisoning):
    """Adds `poisons` stamped points to the data and replaces none; its trigger is to leave answers uncertified.

    Attributes:
        poisons: how many points are added, all told. The default is 1 % of CIFAR-10.
        trigger: the patch; its grey level is what test images carry, unless the attack says otherwise.
    """

    poisons: Annotated[int, Field(ge=1)] = 500
    trigger: GreyPatch = GreyPatch()

    def mark(self, test: Dataset, memory: Mapping[str, Tensor]) -> GreyPatch:
        """What test images carry."""
        del test, memory
        return self.trigger

    def probe(self, test: Dataset, memory: Mapping[str, Tensor], lab: Lab, seed: Seed) -> Probe:
        """Every test image with the patch; no class is wanted, so that any error or refusal will do."""
        del lab, seed
        rows, mark = torch.arange(len(test)), self.mark(test, memory)
        return Probe(rows, painted(test, rows, mark, torch.full((1, 1, 1), mark.grey)), torch.full((len(rows),), -1))


def painted(data: Dataset, rows: Rows, trigger: GreyPatch, greys: Float[Tensor, "m a a"]) -> UInt8[Tensor, "_ c h w"]:
    """Some images of a data set, each with levels of its own (or all with the same), as they are stored.

    Args:
        data: whose images.
        rows: which, repeats allowed.
        trigger: where the patch is.
        greys: the levels in [0, 1] of each image's patch, or of all.
    """
    greys = greys.expand(len(rows), -1, -1)
    parts = zip(rows.split(AT_ONCE), greys.split(AT_ONCE), strict=True)
    return torch.cat([as_stored(trigger.paint(as_float(data.batch(part)), levels)) for part, levels in parts])


def added(
    clean: Dataset, rows: Rows, labels: Int64[Tensor, "m"], trigger: GreyPatch, greys: Float[Tensor, "_ a a"]
) -> Poison:
    """Points that are added: images of these rows with a patch of these levels, and these labels."""
    return Poison(rows, painted(clean, rows, trigger, greys), labels, added=True)


def bases(eligible: Rows, poisons: int, points: int, seed: Seed) -> Rows:
    """So many rows that `poisons` points can be made with `points` of each, drawn uniformly without replacement.

    Raises:
        SettingError: there are not so many.
    """
    count = -(-poisons // points)
    if count > len(eligible):
        raise SettingError(
            f"attack.poisons: {poisons} points are made from {count} images, and this attack may take "
            f"{len(eligible)}; use at most {points * len(eligible)}"
        )
    return eligible[seed.permutation(len(eligible))[:count]]
