"""Label conflicts: a row whose neighbours, in pixels or in features, carry other labels is suspicious."""

from __future__ import annotations

from typing import Annotated

import torch
from jaxtyping import Float, Int64
from pydantic import Field
from torch import Tensor

from bezoar.component import register
from bezoar.defenses.latents import latents
from bezoar.lab import Lab
from bezoar.models.classifier import Classifier
from bezoar.records import Dataset
from bezoar.roles import Sanitizer
from bezoar.seed import Seed

AT_ONCE = 2**23
"""How many distances are held at a time: 64 MB of them."""


@register("contradicting_neighbours")
class ContradictingNeighbours(Sanitizer):
    """How much the labels of a row's few nearest neighbours contradict its own, in pixels and in the victim's features.

    Bezoar's own, against attacks on certifiers that put one base image into the data under several labels. In pixels
    such points are each other's neighbours, whatever the victim makes of them; features show wrong labels that pixels
    do not. Each space gives `conflict`, and the larger of the two is the row's suspicion: points that are consistent in
    one space are found in the other. `neighbours` is small because a base has few points.
    """

    neighbours: Annotated[int, Field(ge=1)] = 5

    def suspicion(self, victim: Classifier, data: Dataset, lab: Lab, seed: Seed) -> Float[Tensor, "n"]:
        """A number in [0, 1]; nothing is random."""
        del seed
        labels = data.labels.to(lab.device)
        spaces = (data.images().flatten(1), latents(victim, data, lab))
        found = [conflict(space.to(lab.device).double(), labels, self.neighbours, lab) for space in spaces]
        return torch.stack(found).amax(0)


def conflict(points: Float[Tensor, "n d"], labels: Int64[Tensor, "n"], neighbours: int, lab: Lab) -> Float[Tensor, "n"]:
    """(k s + r) / (k + 1) for every row, in [0, 1], float32 on the CPU.

    s is the share of the k nearest other rows, by Euclidean distance, that have another label; rows as near as the
    last of them count too, so that the order of the rows does not matter. r orders rows of one share, so that ties are
    rare: a / (a + b), with a and b the distances to the nearest row of the same label and of another one; 1/2 where
    both are 0, 1 where no other row has the label and 0 where all have it.
    """
    count = len(labels)
    if count < 2:
        return torch.zeros(count)
    wanted, parts = min(neighbours, count - 1), list[Tensor]()
    batches = torch.arange(count, device=points.device).split(max(1, AT_ONCE // count))
    for rows in lab.progress.track(batches, "neighbours", len(batches)):
        distances = torch.cdist(points[rows], points)
        distances[torch.arange(len(rows), device=rows.device), rows] = torch.inf  # nobody is its own neighbour
        other = labels[None] != labels[rows][:, None]
        near = distances <= distances.kthvalue(wanted, dim=1, keepdim=True).values
        share = (near & other).sum(1) / near.sum(1)
        same, rival = (distances.masked_fill(out, torch.inf).amin(1) for out in (other, ~other))
        ratio = torch.where(same.isinf(), 1.0, same / (same + rival)).nan_to_num(0.5)
        parts.append(((wanted * share + ratio) / (wanted + 1)).float().cpu())
    return torch.cat(parts)
