"""Deep k-NN: a row whose neighbours in feature space carry other labels is suspicious."""

from __future__ import annotations

from typing import Annotated

import torch
from jaxtyping import Float, Int64
from pydantic import Field
from torch import Tensor

from bezoar.component import register
from bezoar.defenses.latents import by_class, latents
from bezoar.lab import Lab
from bezoar.models.classifier import Classifier
from bezoar.records import Dataset
from bezoar.roles import Sanitizer
from bezoar.seed import Seed

AT_ONCE = 2**24
"""How many distances are held at a time: 64 MB of them."""


@register("deep_knn", paper="arXiv:1909.13374")
class DeepKnn(Sanitizer):
    """The share of a row's nearest neighbours whose label is not its own (Peri et al., ECCV workshops 2020).

    Clean-label poisons lie among the images of another class than the one they are labelled with. Neighbours are
    found by Euclidean distance between the features before the last layer, as they are, among all other rows. The
    paper removes a row whose label is not the most frequent one among its k neighbours; each such row has a score
    of at least one half, and the score ranks the others as well.

    `ratio` sets k as a share of the other rows of the row's own class, so that a small class is not suspicious for
    being small: with equal classes it is the paper's k divided by the size of a class. 1 is our choice. A cluster of
    poisons has neighbours of other labels only if k is larger than the cluster, so backdoors, whose poisons lie
    together and near their target's images, are not what this method is for.
    """

    ratio: Annotated[float, Field(gt=0, le=10)] = 1.0

    def suspicion(self, victim: Classifier, data: Dataset, lab: Lab, seed: Seed) -> Float[Tensor, "n"]:
        """A share in [0, 1]; nothing is random."""
        del seed
        return disagreement(latents(victim, data, lab).to(lab.device), data.labels.to(lab.device), self.ratio, lab)


def disagreement(features: Float[Tensor, "n d"], labels: Int64[Tensor, "n"], ratio: float, lab: Lab) -> Tensor:
    """The share of each row's neighbours with other labels, float32 [n] on the CPU.

    A row of a class of m rows has max(1, round(ratio (m - 1))) neighbours, n - 1 at most; rows as near as the last
    of them count too, so that the order of the rows does not matter.
    """
    count = len(labels)
    scores = torch.zeros(count)
    if count < 2:
        return scores
    parts = [part for rows in by_class(labels) for part in rows.split(max(1, AT_ONCE // count))]
    sizes = labels.bincount()
    for rows in lab.progress.track(parts, "neighbours", len(parts)):
        size = int(sizes[labels[rows[0]]])
        wanted = min(max(1, round(ratio * (size - 1))), count - 1)
        distances = torch.cdist(features[rows], features)
        distances[torch.arange(len(rows), device=rows.device), rows] = torch.inf  # nobody is its own neighbour
        near = distances <= distances.kthvalue(wanted, dim=1, keepdim=True).values
        others = near & (labels[None] != labels[rows][:, None])
        scores[rows.cpu()] = (others.sum(1) / near.sum(1)).float().cpu()
    return scores
