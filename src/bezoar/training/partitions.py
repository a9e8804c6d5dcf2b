"""Partition aggregation: each member of an ensemble is trained on a part of the data of its own."""

from __future__ import annotations

from hashlib import blake2b
from typing import Annotated

import torch
from jaxtyping import Int64
from pydantic import Field
from torch import Tensor

from bezoar.component import register
from bezoar.errors import SettingError
from bezoar.lab import Lab
from bezoar.models.classifier import Classifier
from bezoar.models.ensemble import Ensemble, Vote, assembled
from bezoar.records import Dataset
from bezoar.roles import Architecture, Trainer
from bezoar.seed import Seed
from bezoar.training.sgd import Sgd

AT_ONCE = 1024
"""Images that are decoded at a time to be hashed."""


@register("partition_ensemble", paper="arXiv:2006.14768")
class PartitionEnsemble(Trainer):
    """Deep partition aggregation (Levine & Feizi, ICLR 2021): one model for each part of the data, and a vote.

    An image belongs to the part that a hash of its pixels says, whatever else is in the data, and a part is put in the
    order of those hashes before it is trained on. So a point that is added, taken away or given another label changes
    one member alone, and one that is replaced changes two at most. With ``vote: classes`` it follows from the votes
    how many changed members could not have altered an answer (`tolerated`). Copies of an image share a part.

    What is trained is no instance of the architecture that is given but an `Ensemble` of it (`makes`).
    """

    trainer: Trainer = Sgd()
    parts: Annotated[int, Field(ge=1)] = 10
    vote: Vote = "classes"

    def makes(self, architecture: Architecture) -> Architecture:
        """An ensemble of what the inner trainer makes of that architecture."""
        return Ensemble(architecture=self.trainer.makes(architecture), parts=self.parts, vote=self.vote)

    def train(self, architecture: Architecture, data: Dataset, lab: Lab, seed: Seed) -> Classifier:
        """Train each member by the inner trainer, with a seed of its own, on its part.

        Raises:
            SettingError: a part has no images.
        """
        parts = partition(data, self.parts)
        empty = [number for number, rows in enumerate(parts) if not len(rows)]
        if empty:
            raise SettingError(
                f"trainer.parts: of {self.parts} parts of {len(data)} images, {len(empty)} are empty; choose fewer"
            )
        numbered = lab.progress.track(list(enumerate(parts)), "parts", len(parts))
        members = [
            self.trainer.train(architecture, data.take(rows), lab, seed / "part" / number) for number, rows in numbered
        ]
        return assembled(members, self.vote).eval()


def partition(data: Dataset, parts: int) -> list[Int64[Tensor, "_"]]:
    """The rows of each part, which may be none, in the order of the images' digests and, of copies, of the labels."""
    digests: list[bytes] = []
    for rows in torch.arange(len(data)).split(AT_ONCE):
        digests += [blake2b(image.tobytes(), digest_size=16).digest() for image in data.batch(rows).cpu().numpy()]
    chosen: list[list[int]] = [[] for _ in range(parts)]
    for row in sorted(range(len(data)), key=lambda row: (digests[row], int(data.labels[row]), row)):
        chosen[int.from_bytes(digests[row], "big") % parts].append(row)
    return [torch.tensor(rows, dtype=torch.int64) for rows in chosen]


def tolerated(votes: Int64[Tensor, "n k"]) -> Int64[Tensor, "n"]:
    """How many parts may be changed at will without altering the answer, by the votes of each class (Theorem 1).

    floor((n_c - max(n_j + [j < c])) / 2) for the winner c, the smallest class of those with the most votes: a changed
    part takes one vote from the winner and gives another class one, and a tie goes to the smaller class. A point that
    is added, removed or relabelled changes one part, one that is replaced two.
    """
    winner = votes.argmax(1, keepdim=True)
    classes = torch.arange(votes.shape[1], device=votes.device)
    rivals = (votes + (classes < winner)).scatter(1, winner, -1).amax(1)
    return (votes.gather(1, winner)[:, 0] - rivals) // 2
