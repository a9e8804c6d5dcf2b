"""A certifier that needs no trust: the closed form for linear models, and such a model."""
# ruff: noqa: ARG002 - the signature is the role's

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from bezoar.lab import Lab
from bezoar.models.classifier import Classifier
from bezoar.records import Certificates, Norm
from bezoar.roles import Certifier
from bezoar.seed import Seed


class Exact(Certifier):
    """The largest L-infinity radius of a linear model, in closed form."""

    kind: ClassVar[str] = "exact"
    smallest: float = 0.0

    @property
    def norm(self) -> Norm:
        return "inf"

    @property
    def demanded(self) -> float:
        return self.smallest

    def certify(self, model: Classifier, images: Tensor, lab: Lab, seed: Seed) -> Certificates:
        with torch.no_grad():
            logits = model(images)
        weight = model.head.weight.detach()
        predicted = logits.argmax(1)
        margins = logits.gather(1, predicted[:, None]) - logits
        steep = (weight[predicted][:, None] - weight[None]).abs().sum(2)
        radius = (margins / steep.clamp_min(1e-12)).masked_fill(steep == 0, torch.inf).amin(1)
        kept = radius >= self.smallest
        return Certificates(predicted, radius.where(kept, 0), kept, radius, kept.long() - 1, ("exact",), "inf")


def linear(side: int, number: int = 5) -> Classifier:
    with Seed(number).scoped():
        return Classifier.wrap(nn.Sequential(nn.Flatten(), nn.Linear(side * side, 3)), ("a", "b", "c")).eval()
