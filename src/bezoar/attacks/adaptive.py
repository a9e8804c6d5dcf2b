"""What the adaptive attacks share: parts of the trigger are left out, and a share of its carriers keep true labels."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import torch
from jaxtyping import Float, Int64
from pydantic import Field
from torch import Tensor

from bezoar.attacks.stamping import Stamping
from bezoar.lab import Lab
from bezoar.records import Dataset, Poison
from bezoar.seed import Seed


class Adaptive(Stamping):
    """Poison m images with parts of a trigger, and leave the true label on a share of them (Qi et al., ICLR 2023).

    In training images the trigger is divided into `cells` x `cells` cells, each of which is left out
    with probability `occlusion`, for every image anew (``exact_half``: half of the cells, drawn without
    replacement). `conservatism` is the share of the m images that keep their true label, rounded; with
    both, poisoned images do not gather in one place of the latent space. Test images carry the whole
    trigger (spec 2.2, A8, A9).
    """

    cells: Annotated[int, Field(ge=1)] = 4
    occlusion: Annotated[float, Field(ge=0, lt=1)] = 0.5
    exact_half: bool = False
    conservatism: Annotated[float, Field(ge=0, lt=1)] = 0.5

    def stamp_training(
        self, images: Float[Tensor, "n c h w"], rows: Int64[Tensor, "n"], lab: Lab, key: Seed
    ) -> Float[Tensor, "n c h w"]:
        """The trigger without the cells that are drawn for each row."""
        del lab
        kept = torch.stack([self._cells(key / "cells" / row) for row in rows.tolist()])
        return self.trigger.stamp_cells(images, kept)

    def poison(self, clean: Dataset, lab: Lab, seed: Seed) -> Poison:
        """`poisons` rows of other classes; the last round(conservatism m) of them keep their labels."""
        poison = super().poison(clean, lab, seed)
        truthful = round(self.conservatism * self.poisons)
        labels = poison.labels.clone()
        if truthful:
            labels[-truthful:] = clean.labels[poison.rows[-truthful:]]
        return replace(poison, labels=labels)

    def _cells(self, seed: Seed) -> Float[Tensor, "1 k k"]:
        """Which cells one image keeps: 1 or 0."""
        generator = seed.generator()
        if self.exact_half:
            order = torch.randperm(self.cells**2, generator=generator)
            kept = (order < self.cells**2 - self.cells**2 // 2).float()
        else:
            kept = (torch.rand(self.cells**2, generator=generator) >= self.occlusion).float()
        return kept.view(1, self.cells, self.cells)
