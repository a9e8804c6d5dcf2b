"""Pivotal Tuning with the Soft Latent Orthogonalization Loss (Lukas & Kerschbaum, Algorithm 3)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, ClassVar, Literal

import torch
from jaxtyping import Float, Int64
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from bezoar.component import register
from bezoar.defenses.repairers.fine_tuning import FineTuning, LearningRate, Steps, student_of
from bezoar.lab import Lab
from bezoar.models.classifier import Classifier, frozen
from bezoar.records import Trusted
from bezoar.roles import Range
from bezoar.seed import Seed
from bezoar.training.batches import Batch

RESNET18_PARAMETERS = 11_173_962
"""The network of the paper's Table V, for which its weight of the parameter term was chosen."""

TEN_CLASS_PAIRS = 45
"""K (K - 1) / 2 at the ten classes of CIFAR-10, for which Table V's weight of SLOL was chosen."""


@register("pivotal_tuning", paper="arXiv:2305.09671, Algorithm 3")
class PivotalTuning(FineTuning):
    """Fine-tune away from the suspect's latent directions while staying close to its parameters.

    L = CE + slol_lambda SLOL(pivot, student) + param_lambda R(student, pivot), with the suspect as the
    frozen pivot. Defaults: Table V for CIFAR-10, 500 trusted images.

    ``scaling: invariant`` makes the weights mean the same at every size (docs/decisions/0003): SLOL is
    averaged over the pairs of classes and multiplied by 45, the parameter term is the sum of squares
    over 11,173,962. ``scaling: release`` takes the printed loss: a sum over pairs, and the mean of squares
    over however many parameters there are. Both agree for ResNet-18 at ten classes.
    """

    ranges: ClassVar[Mapping[str, Range]] = {
        "lr": Range(0.001, 0.1),
        "slol_lambda": Range(0.001, 0.1),
        "param_lambda": Range(2e3, 2e6),
    }

    steps: Steps = 2000
    lr: LearningRate = 0.01
    slol_lambda: Annotated[float, Field(ge=0)] = 0.05
    param_lambda: Annotated[float, Field(ge=0)] = 20_000.0
    scaling: Literal["invariant", "release"] = "invariant"
    batchnorm: Literal["train", "eval"] = "train"

    def repair(self, suspect: Classifier, trusted: Trusted, lab: Lab, seed: Seed) -> Iterator[Classifier]:
        """The student after each of `steps` steps; SGD with Nesterov momentum at a constant learning rate."""
        pivot = frozen(suspect)
        student = student_of(suspect)
        parameters = list(student.parameters())
        origin = [parameter.detach().clone() for parameter in parameters]
        count = sum(parameter.numel() for parameter in parameters)
        pull = self.param_lambda / (RESNET18_PARAMETERS if self.scaling == "invariant" else count)

        def objective(model: Classifier, batch: Batch) -> Tensor:
            with torch.no_grad():
                pivotal = pivot.features(batch.images)
            latents = model.features(batch.images)
            loss = functional.cross_entropy(model.head(latents), batch.labels)
            slol, pairs = soft_latent_orthogonalization(pivotal, latents, batch.labels, len(trusted.classes))
            if self.scaling == "invariant":
                slol = slol * (TEN_CLASS_PAIRS / max(pairs, 1))
            distance = torch.stack([(now - then).square().sum() for now, then in zip(parameters, origin, strict=True)])
            return loss + self.slol_lambda * slol + pull * distance.sum()

        yield from self.fine_tune(student, trusted, objective, lab, seed, training=self.batchnorm == "train")


def soft_latent_orthogonalization(
    pivotal: Float[Tensor, "b d"], latents: Float[Tensor, "b d"], labels: Int64[Tensor, "b"], classes: int
) -> tuple[Float[Tensor, ""], int]:
    """SLOL of one batch (Algorithm 3) and the number of pairs of classes that it sums over.

    With the class centroids C of the pivot and D of the student, the sum over pairs i < j of
    cos(C_i - C_j, D_i - D_j) + cos(D_i, D_j): signed cosines, each pair once (spec 3.1, A2, A3). The
    classes are those present in the batch; with fewer than two the loss is 0. All cosines come from
    three K x K Gram matrices; no K x K x d tensor is made.
    """
    member = functional.one_hot(labels, classes).to(latents)
    member = member[:, member.sum(0) > 0]
    present = member.shape[1]
    if present < 2:
        return latents.sum() * 0, 0
    average = member / member.sum(0)
    then, now = average.T @ pivotal, average.T @ latents
    upper = torch.triu_indices(present, present, offset=1, device=latents.device)
    across = _difference_products(then @ now.T)
    lengths = _difference_products(then @ then.T) * _difference_products(now @ now.T)
    turned = across / lengths.clamp_min(0).add(1e-12).sqrt()
    unit = functional.normalize(now, eps=1e-6)
    return (turned + unit @ unit.T)[upper[0], upper[1]].sum(), upper.shape[1]


def _difference_products(products: Tensor) -> Tensor:
    """<a_i - a_j, b_i - b_j> for all pairs, from the products <a_i, b_j>."""
    own = products.diagonal()
    return own[:, None] + own[None, :] - products - products.T
