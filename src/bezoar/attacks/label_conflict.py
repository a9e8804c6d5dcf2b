"""One image, several labels: contradiction at a single point."""

from __future__ import annotations

from typing import Literal

import torch

from bezoar.attacks.adding import Adding, added, bases
from bezoar.component import register
from bezoar.lab import Lab
from bezoar.records import Dataset, Poison
from bezoar.seed import Seed


@register("label_conflict", paper="our ablation, beside arXiv:2108.11299")
class LabelConflict(Adding):
    """Add each stamped image several times with labels that contradict each other: an ablation of `certifier_ladder`.

    Bezoar's own. ``labels: all`` gives an image the labels of all K classes; ``pair`` its own label y and
    y + floor(K / 2) mod K. The patch has one grey level, at training and at test time. Where `poisons` is no multiple
    of the number of labels, the last image gets fewer of them.
    """

    labels: Literal["all", "pair"] = "all"

    def poison(self, clean: Dataset, lab: Lab, seed: Seed) -> Poison:
        """`poisons` points, image by image, each image's labels in turn from its own.

        Raises:
            SettingError: there are too few images, or the patch does not fit them.
        """
        del lab
        classes = len(clean.classes)
        steps = torch.arange(classes) if self.labels == "all" else torch.tensor([0, classes // 2])
        rows = bases(torch.arange(len(clean)), self.poisons, len(steps), seed / "rows")
        labels = (clean.labels[rows][:, None] + steps) % classes
        rows, labels = (each[: self.poisons] for each in (rows.repeat_interleave(len(steps)), labels.flatten()))
        return added(clean, rows, labels, self.trigger, torch.full((1, 1, 1), self.trigger.grey))
