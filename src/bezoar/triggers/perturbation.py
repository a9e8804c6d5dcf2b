"""A perturbation of every image of its own, made adversarially on a model of the attacker's."""

from __future__ import annotations

from math import floor
from typing import Annotated

import torch
from jaxtyping import Float, Int64
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from bezoar.component import register
from bezoar.errors import SettingError
from bezoar.lab import Lab
from bezoar.models.classifier import Classifier
from bezoar.models.surrogates import Trained
from bezoar.roles import Surrogate, Trigger
from bezoar.seed import Seed

BANNISTER = 421
"""The class of ImageNet towards which the paper perturbs."""

IMAGENET_CLASSES = 1000
LEVELS = 255


@register("perturbation", paper="Turner et al., 2018; arXiv:2305.09671, appendix B")
class Perturbation(Trigger):
    """x~ = x + delta with |delta| <= epsilon in every pixel: targeted projected gradient descent on a surrogate.

    From delta = 0, `steps` times delta -= `step_size` sign(gradient of the cross-entropy towards class
    `toward`), cut to the ball and to [0, 1] (spec 2.3, A10). There is no fixed pattern: the transform
    itself is the trigger, at training and at test time. `epsilon` and `step_size` count in levels of 8
    bits. `toward` is a class of the surrogate; by default the paper's 421 of ImageNet's thousand classes,
    and of fewer the last.
    """

    surrogate: Surrogate = Trained()
    epsilon: Annotated[float, Field(ge=1, le=LEVELS)] = 8
    step_size: Annotated[float, Field(gt=0, le=LEVELS)] = 2
    steps: Annotated[int, Field(ge=1)] = 4
    toward: Annotated[int, Field(ge=0)] | None = None

    @property
    def wanted_model(self) -> Surrogate:
        """The surrogate."""
        return self.surrogate

    def stamp(
        self, images: Float[Tensor, "n c h w"], rows: Int64[Tensor, "n"], lab: Lab, seed: Seed
    ) -> Float[Tensor, "n c h w"]:
        """Each image perturbed for itself; nothing is drawn. The bound holds for images stored in 8 bits as well."""
        del rows, seed
        if lab.surrogate is None:
            raise SettingError("trigger.surrogate: this lab was given no model; call Referee.attackers_lab for one")
        model, clean = lab.surrogate, images.to(lab.device)
        # a stored image moves by whole levels, and rounding must not take it beyond the bound
        radius, stride = floor(self.epsilon) / LEVELS, self.step_size / LEVELS
        wanted = torch.full((len(images),), self.direction(model), device=lab.device)
        perturbed = clean
        for _ in range(self.steps):
            moving = perturbed.detach().requires_grad_(True)
            with torch.enable_grad():
                loss = functional.cross_entropy(model(moving), wanted, reduction="sum")
            (gradient,) = torch.autograd.grad(loss, moving)
            step = perturbed - stride * gradient.sign()
            perturbed = (clean + (step - clean).clamp(-radius, radius)).clamp(0, 1).detach()
        return perturbed.to(images.device)

    def direction(self, surrogate: Classifier) -> int:
        """The class towards which images are perturbed.

        Raises:
            SettingError: the surrogate has no such class.
        """
        count = len(surrogate.classes)
        if self.toward is None:
            return BANNISTER if count == IMAGENET_CLASSES else count - 1
        if self.toward >= count:
            raise SettingError(
                f"trigger.toward: the surrogate has no class {self.toward}; it has classes 0 to {count - 1}"
            )
        return self.toward
