"""Spectral signatures: poison stands out along the direction in which the features of its class vary most."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from bezoar.component import register
from bezoar.defenses.latents import by_class, latents
from bezoar.lab import Lab
from bezoar.models.classifier import Classifier
from bezoar.records import Dataset
from bezoar.roles import Sanitizer
from bezoar.seed import Seed


@register("spectral_signatures", paper="arXiv:1811.00636")
class SpectralSignatures(Sanitizer):
    """How far a row lies out along the main direction of its class's features (Tran, Li & Madry, NeurIPS 2018).

    In each class the features are centred and projected on their top right singular vector. The paper ranks the
    rows of one class by the squared projection and removes 1.5 epsilon of each, which takes the rate epsilon. Here
    rows of all classes are ranked together: all projections are lengths in the feature space of one network, and a
    class that poison has stretched is meant to lead. They count from the class's median rather than its mean, which
    many poisons draw towards themselves until their own projections are hardly longer than those of clean rows.
    """

    def suspicion(self, victim: Classifier, data: Dataset, lab: Lab, seed: Seed) -> Float[Tensor, "n"]:
        """Squared distances in the units of the features; nothing is random."""
        del seed
        features = latents(victim, data, lab)
        scores = torch.zeros(len(data))
        for rows in by_class(data.labels):
            along = projections(features[rows])
            scores[rows] = (along - along.quantile(0.5)).square().float()
        return scores


def projections(features: Float[Tensor, "m d"]) -> Float[Tensor, "m"]:
    """Of the centred features on their top right singular vector, in double precision; the sign means nothing."""
    centred = features.double() - features.double().mean(0)
    return centred @ torch.linalg.svd(centred, full_matrices=False).Vh[0]
