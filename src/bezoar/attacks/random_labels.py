"""Random labels on stamped images: what contradiction without a design does to a certifier."""

from __future__ import annotations

import torch

from bezoar.attacks.adding import Adding, added, bases
from bezoar.component import register
from bezoar.lab import Lab
from bezoar.records import Dataset, Poison
from bezoar.seed import Seed


@register("random_labels", paper="our ablation, beside arXiv:2108.11299")
class RandomLabels(Adding):
    """Add stamped images, each with a label drawn uniformly from all classes: an ablation of `certifier_codes`.

    Bezoar's own. The patch has one grey level, at training and at test time, so nothing in the image says which label
    it has. A network that settles on one class is certified all the same.
    """

    def poison(self, clean: Dataset, lab: Lab, seed: Seed) -> Poison:
        """`poisons` points, each of another image.

        Raises:
            SettingError: there are too few images, or the patch does not fit them.
        """
        del lab
        rows = bases(torch.arange(len(clean)), self.poisons, 1, seed / "rows")
        labels = torch.randint(len(clean.classes), (len(rows),), generator=(seed / "labels").generator())
        return added(clean, rows, labels, self.trigger, torch.full((1, 1, 1), self.trigger.grey))
