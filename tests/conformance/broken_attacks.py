"""Triggers and attacks that keep every promise but one."""
# ruff: noqa: ARG002 - the signature is the role's

from collections.abc import Mapping
from dataclasses import replace
from hashlib import blake2b

import numpy as np
import torch
from pydantic import ConfigDict
from torch import Tensor

from bezoar.attacks.badnets import BadNets
from bezoar.attacks.random_labels import RandomLabels
from bezoar.lab import Lab
from bezoar.records import Dataset, Poison, Probe
from bezoar.seed import Seed
from bezoar.triggers.patch import Patch


def elsewhere(seed: Seed) -> Seed:
    """A seed that depends on the global generator, which is not drawn from."""
    return seed / blake2b(torch.get_rng_state().numpy().tobytes()).hexdigest()


class Undocumented(Patch):
    __doc__ = None


class Fluid(Patch):
    """Its settings can be changed."""

    model_config = ConfigDict(frozen=False)


class Unclamped(Patch):
    """It leaves [0, 1]."""

    def stamp(self, images: Tensor, rows: Tensor, lab: Lab, seed: Seed) -> Tensor:
        return images + 0.1


class InPlace(Patch):
    """It stamps the images that it was given."""

    def stamp(self, images: Tensor, rows: Tensor, lab: Lab, seed: Seed) -> Tensor:
        return images.copy_(super().stamp(images, rows, lab, seed))


class NoiseByBatch(Patch):
    """Its randomness depends on the place in the batch."""

    def stamp(self, images: Tensor, rows: Tensor, lab: Lab, seed: Seed) -> Tensor:
        return torch.rand(images.shape, generator=seed.generator())


class Invisible(Patch):
    """It changes nothing."""

    def stamp(self, images: Tensor, rows: Tensor, lab: Lab, seed: Seed) -> Tensor:
        return images.clone()


class DrawsFromNumpy(Patch):
    """It draws from numpy's global generator, and forgets about it."""

    def stamp(self, images: Tensor, rows: Tensor, lab: Lab, seed: Seed) -> Tensor:
        np.random.rand()  # noqa: NPY002
        return super().stamp(images, rows, lab, seed)


class DrawsFromTorch(BadNets):
    """It draws from the global generator while poisoning."""

    def poison(self, clean: Dataset, lab: Lab, seed: Seed) -> Poison:
        torch.rand(1)
        return super().poison(clean, lab, seed)


class DependsOnTheGenerator(BadNets):
    """It has more to go by than its seed."""

    def poison(self, clean: Dataset, lab: Lab, seed: Seed) -> Poison:
        return super().poison(clean, lab, elsewhere(seed))


class IgnoresTheSeed(BadNets):
    """It always takes the same rows."""

    def poison(self, clean: Dataset, lab: Lab, seed: Seed) -> Poison:
        return super().poison(clean, lab, Seed(0))


class WritesIntoTheData(BadNets):
    """It labels the victim's own data."""

    def poison(self, clean: Dataset, lab: Lab, seed: Seed) -> Poison:
        made = super().poison(clean, lab, seed)
        clean.labels[made.rows] = made.labels
        return made


class NeedsMemory(BadNets):
    """It reaches around the reader."""

    def poison(self, clean: Dataset, lab: Lab, seed: Seed) -> Poison:
        _ = clean.reader.__self__
        return super().poison(clean, lab, seed)


class OverBudget(BadNets):
    """It takes one row twice."""

    def poison(self, clean: Dataset, lab: Lab, seed: Seed) -> Poison:
        made = super().poison(clean, lab, seed)
        twice = torch.cat([made.rows[:1], made.rows[:-1]])
        return replace(made, rows=twice)


class AddsOneMore(RandomLabels):
    """It adds a point beyond its budget."""

    def poison(self, clean: Dataset, lab: Lab, seed: Seed) -> Poison:
        made = super().poison(clean, lab, seed)
        rows, images, labels = (torch.cat([each, each[:1]]) for each in (made.rows, made.images, made.labels))
        return replace(made, rows=rows, images=images, labels=labels)


class TakesTheTargetClass(BadNets):
    """One of its images shows the target class already."""

    def poison(self, clean: Dataset, lab: Lab, seed: Seed) -> Poison:
        made = super().poison(clean, lab, seed)
        own = (clean.labels == self.target).nonzero()[:1, 0]
        return replace(made, rows=torch.cat([own, made.rows[1:]]))


class TakesWhatThereIs(BadNets):
    """It makes do where its budget cannot be met."""

    def poison(self, clean: Dataset, lab: Lab, seed: Seed) -> Poison:
        return BadNets(poisons=min(self.poisons, 40), target=self.target).poison(clean, lab, seed)


class FlattersItself(BadNets):
    """Its probe counts images that show the target class anyway."""

    def probe(self, test: Dataset, memory: Mapping[str, Tensor], lab: Lab, seed: Seed) -> Probe:
        rows = torch.arange(len(test))
        return Probe(rows, test.images(), torch.full((len(test),), self.target))
