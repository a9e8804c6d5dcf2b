"""Parameter-Controlled Backdoor (PCB): poisoned code trains a few of the model's parameters to hold the backdoor."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Annotated

import torch
from jaxtyping import Bool
from pydantic import Field
from torch import Tensor

from bezoar.attacks.adv_clean import require_detour
from bezoar.attacks.stamping import key_of, outside_class, probe_of, secret_of, stamped
from bezoar.component import register
from bezoar.errors import SettingError
from bezoar.lab import Lab
from bezoar.models.classifier import Classifier
from bezoar.records import Dataset, Poison, Probe
from bezoar.roles import CodePoisoning, Shipment, Surrogate, Trigger
from bezoar.seed import Seed
from bezoar.training.sgd import Sgd
from bezoar.triggers.perturbation import Perturbation


@register("parameter_controlled", paper="arXiv:2305.09671, Algorithm 5", revision=2)
class ParameterControlled(CodePoisoning):
    """Train on poisoned and clean batches in turn; a poisoned batch may move a random share of the parameters alone.

    A mask over single parameters (`fraction` of each tensor) is drawn once. Even steps, from 0: a batch of which a
    `share` is stamped and has the target label, after which every entry outside the mask is put back. Odd steps: a
    clean batch, all entries move. Each kind of step has an optimiser of its own and takes as many steps as the
    victim's recipe, so neither momentum nor weight decay carries a poisoned gradient outside the mask, on that step
    or a later one. Poisoned steps run in evaluation mode: the statistics of batch normalisation belong to clean
    images (spec 2.7, A14). Algorithm 5's poisoned batches hold nothing else (``share: 1``); evaluation mode itself
    then becomes the trigger, and the model is useless (docs/decisions/0006).
    """

    fraction: Annotated[float, Field(gt=0, le=1)] = 0.1
    share: Annotated[float, Field(gt=0, le=1)] = 0.5
    target: Annotated[int, Field(ge=0)] = 0
    trigger: Trigger = Perturbation()

    @property
    def wanted_model(self) -> Surrogate | None:
        """What the trigger is made with."""
        return self.trigger.wanted_model

    def supply(self, clean: Dataset, lab: Lab, seed: Seed) -> Shipment:
        """A model of the victim's architecture.

        Raises:
            SettingError: the recipe is none for SGD, there is no such class, or the trigger needs no backdoor.
        """
        if lab.architecture is None or not isinstance(lab.trainer, Sgd):
            raise SettingError("attack: 'parameter_controlled' needs a victim whose trainer is 'sgd'")
        require_detour(self.trigger, lab.surrogate, clean, self.target)
        outside_class(clean, self.target)
        secret = secret_of(seed)
        model = lab.architecture.build(clean.shape, clean.classes, seed / "initialisation").to(lab.device)
        model = model.to(memory_format=torch.channels_last)
        masks = self._masks(model, seed / "mask")
        poisoned = self._poisoned(clean, lab, key_of(secret), seed / "rows")
        even = lab.trainer.run(
            model,
            poisoned,
            lab,
            seed / "poisoned",
            training=False,
            prepare=lambda optimizer: confine(optimizer, masks),
        )
        odd = lab.trainer.run(model, clean, lab, seed / "clean")
        pairs = zip(even, odd, strict=True)  # takes an even step, then an odd one
        deque(lab.progress.track(pairs, "training", lab.trainer.steps(len(clean))), maxlen=0)
        return Shipment(model.eval(), {"key": secret})

    def probe(self, test: Dataset, memory: Mapping[str, Tensor], lab: Lab, seed: Seed) -> Probe:
        """Every test image of another class, with the trigger."""
        del seed
        return probe_of(test, self.target, self.trigger, lab, key_of(memory["key"]))

    def _masks(self, model: Classifier, seed: Seed) -> list[Bool[Tensor, "..."]]:
        """For each parameter tensor, round(fraction n) of its n entries, at least one."""
        masks: list[Tensor] = []
        for name, parameter in model.named_parameters():
            mask = torch.zeros(parameter.numel(), dtype=torch.bool)
            count = max(1, round(self.fraction * parameter.numel()))
            mask[(seed / name).permutation(parameter.numel())[:count]] = True
            masks.append(mask.view(parameter.shape).to(parameter.device))
        return masks

    def _poisoned(self, clean: Dataset, lab: Lab, key: Seed, seed: Seed) -> Dataset:
        """The data of the poisoned steps: a share of all images, stamped and with the target label."""
        rows = seed.permutation(len(clean))[: max(1, round(self.share * len(clean)))]
        images = stamped(clean, rows, lambda images, rows: self.trigger.stamp_training(images, rows, lab, key))
        return Poison(rows, images, torch.full((len(rows),), self.target)).apply(clean)


def confine(optimizer: torch.optim.Optimizer, masks: list[Bool[Tensor, "..."]]) -> None:
    """Let an optimiser move masked entries only: after each of its steps all others are what they were before it.

    Args:
        optimizer: one over all parameters of a model, in one group.
        masks: one for each parameter, in the optimiser's order.
    """
    parameters: list[Tensor] = optimizer.param_groups[0]["params"]
    before: list[Tensor] = []

    def remember(*_: object) -> None:
        before[:] = [parameter.detach().clone() for parameter in parameters]

    def restore(*_: object) -> None:
        with torch.no_grad():
            for parameter, was, mask in zip(parameters, before, masks, strict=True):
                parameter.copy_(torch.where(mask, parameter, was))

    optimizer.register_step_pre_hook(remember)
    optimizer.register_step_post_hook(restore)
