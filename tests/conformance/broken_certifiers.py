"""Certifiers that keep every promise but one."""

from dataclasses import replace

import torch
from torch import Tensor

from bezoar.certifiers.bounds import Bounds
from bezoar.lab import Lab
from bezoar.models.classifier import Classifier, mode
from bezoar.records import Certificates
from bezoar.seed import Seed


class Certify(Bounds):
    """The certifier that the broken ones spoil."""

    def certify(self, model: Classifier, images: Tensor, lab: Lab, seed: Seed) -> Certificates:
        return super().certify(model, images, lab, seed)


class VouchesForEverything(Certify):
    """Whatever the bounds say."""

    def certify(self, model: Classifier, images: Tensor, lab: Lab, seed: Seed) -> Certificates:
        found = super().certify(model, images, lab, seed)
        radius, method = torch.full_like(found.radius, self.epsilon), torch.zeros_like(found.method)
        return replace(found, radius=radius, method=method, certified=torch.ones_like(found.certified))


class VouchesForNothing(Certify):
    """Sound, and useless."""

    def certify(self, model: Classifier, images: Tensor, lab: Lab, seed: Seed) -> Certificates:
        found = super().certify(model, images, lab, seed)
        radius, method = torch.zeros_like(found.radius), torch.full_like(found.method, -1)
        return replace(found, radius=radius, method=method, certified=torch.zeros_like(found.certified))


class CountsHalfTheRadius(Certify):
    """It gives a smaller radius than it certifies."""

    def certify(self, model: Classifier, images: Tensor, lab: Lab, seed: Seed) -> Certificates:
        found = super().certify(model, images, lab, seed)
        return replace(found, radius=found.radius / 2)


class NamesTheNextClass(Certify):
    """It certifies one class and names another."""

    def certify(self, model: Classifier, images: Tensor, lab: Lab, seed: Seed) -> Certificates:
        found = super().certify(model, images, lab, seed)
        return replace(found, predicted=(found.predicted + 1) % len(model.classes))


class SetsEvaluationMode(Certify):
    """It certifies another model than it was handed."""

    def certify(self, model: Classifier, images: Tensor, lab: Lab, seed: Seed) -> Certificates:
        with mode(model, training=False):
            return super().certify(model, images, lab, seed)


class ClipsWhatItIsGiven(Certify):
    """It certifies other images than it was handed."""

    def certify(self, model: Classifier, images: Tensor, lab: Lab, seed: Seed) -> Certificates:
        return super().certify(model, images.nan_to_num().clamp(0, 1), lab, seed)


class FreezesTheModel(Certify):
    """It leaves the flags of the parameters as it likes them."""

    def certify(self, model: Classifier, images: Tensor, lab: Lab, seed: Seed) -> Certificates:
        return super().certify(model.requires_grad_(False), images, lab, seed)


class LooksAtThePlace(Certify):
    """The first image has stronger evidence than it would have elsewhere."""

    def certify(self, model: Classifier, images: Tensor, lab: Lab, seed: Seed) -> Certificates:
        found = super().certify(model, images, lab, seed)
        return replace(found, evidence=found.evidence * torch.linspace(1.5, 1, len(found)))


class RollsDice(Certify):
    """It draws from the global generator."""

    def certify(self, model: Classifier, images: Tensor, lab: Lab, seed: Seed) -> Certificates:
        torch.rand(1)
        return super().certify(model, images, lab, seed)
