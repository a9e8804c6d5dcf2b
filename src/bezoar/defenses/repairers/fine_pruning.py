"""Fine-Pruning: reset the channels that clean images leave silent, then fine-tune (Liu et al., RAID 2018)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from jaxtyping import Float, Int64
from pydantic import Field
from torch import Tensor, nn

from bezoar.component import register
from bezoar.defenses.repairers.fine_tuning import FineTuning, student_of
from bezoar.errors import SettingError
from bezoar.lab import Lab
from bezoar.models.classifier import Classifier, mode
from bezoar.records import Trusted
from bezoar.roles import Range
from bezoar.seed import Seed
from bezoar.training.batches import Batch, batches
from bezoar.training.steps import cross_entropy

LOOKS = 10
"""Batches of trusted images over which activations are averaged."""


@register("fine_pruning", paper="Liu et al., RAID 2018; arXiv:2305.09671, Table V")
class FinePruning(FineTuning):
    """Reset the `rate` least active channels of the last convolution to zero, then fine-tune all parameters.

    A backdoor may live in channels that clean images do not use. Activity is the mean of ReLU(BN(conv)) over 10
    batches of trusted images in evaluation mode; a channel's filter goes to zero together with the scale and
    shift of its batch normalisation, which would leak a constant otherwise (spec 3.3). Filter and scale are each
    other's factor in the gradient, so both stay at zero while fine-tuning; the shift may move, unless
    `freeze_pruned`. ``layers: all`` resets that share of every convolution (A18). At least one channel of a layer
    stays. The first model comes right after pruning. Defaults: Table V for CIFAR-10.
    """

    ranges: ClassVar[Mapping[str, Range]] = {"lr": Range(0.001, 0.1), "rate": Range(0.5, 0.99)}

    rate: Annotated[float, Field(ge=0, lt=1)] = 0.96
    layers: Literal["last", "all"] = "last"
    freeze_pruned: bool = False

    @property
    def length(self) -> int:
        """One model after pruning and one a step."""
        return 1 + self.steps

    @property
    def surgery(self) -> int:
        """Pruning."""
        return 1

    def repair(self, suspect: Classifier, trusted: Trusted, lab: Lab, seed: Seed) -> Iterator[Classifier]:
        """The student right after pruning, then after each of `steps` steps.

        Raises:
            SettingError: the suspect has no convolution to prune.
        """
        student = student_of(suspect).eval()
        stream = batches(trusted, self.batch_size, seed / "activity", device=lab.device, epochs=None)
        looks = [batch for batch, _ in zip(stream, range(LOOKS), strict=False)]
        found = convolutions(student, looks)
        if not found:
            raise SettingError(
                "repairer: 'fine_pruning' prunes channels of convolutions, and this model has none, or none behind its "
                "first layer; use 'weight_decay' or 'pivotal_tuning'"
            )
        chosen = found if self.layers == "all" else found[-1:]
        pruned = [Pruned(channels, channels.least_active(self.rate)) for channels in chosen]

        def reset(*_: object) -> None:
            for one in pruned:
                one.reset()

        reset()
        yield student
        after = reset if self.freeze_pruned else None
        yield from self.fine_tune(student, trusted, cross_entropy, lab, seed, after=after)


@dataclass(frozen=True)
class Channels:
    """A convolution, the batch normalisation that follows it, if one does, and how active each channel is."""

    convolution: nn.Conv2d
    norm: nn.BatchNorm2d | None
    activity: Float[Tensor, "c"]

    def least_active(self, rate: float) -> Int64[Tensor, "_"]:
        """The round(rate c) channels with the lowest activity, but never all."""
        count = len(self.activity)
        return self.activity.argsort(stable=True)[: min(round(rate * count), count - 1)]


@dataclass(frozen=True)
class Pruned:
    """Channels of a convolution that are to be zero."""

    channels: Channels
    rows: Int64[Tensor, "_"]

    @torch.no_grad()
    def reset(self) -> None:
        """Put filter, bias, scale and shift of these channels to zero."""
        for layer in (self.channels.convolution, self.channels.norm):
            if layer is None:
                continue
            for parameter in (layer.weight, layer.bias):
                if parameter is not None:
                    parameter[self.rows] = 0


@torch.no_grad()
def convolutions(model: Classifier, looks: list[Batch]) -> list[Channels]:
    """The model's convolutions in the order in which they run, with their mean activity over some batches.

    A batch normalisation belongs to a convolution if it takes its very output, and nothing in between. Where some
    convolutions have one, the others are left out: they are gates, or project into a sum. The patch embedding of
    a transformer is no convolution to prune.

    Args:
        model: in evaluation mode; left as it is, hooks included.
        looks: trusted images.
    """
    made: dict[int, nn.Conv2d] = {}
    alive: list[Tensor] = []
    ran: list[nn.Conv2d] = []
    norms: dict[nn.Conv2d, nn.BatchNorm2d] = {}
    sums: dict[nn.Module, Tensor] = {}

    def watch(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        sums[layer] = sums.get(layer, torch.zeros((), device=output.device)) + output.relu().mean((0, 2, 3))
        if isinstance(layer, nn.Conv2d):
            ran.append(layer)
            made[id(output)] = layer
            alive.append(output)  # so that no other tensor gets its identity
        elif isinstance(layer, nn.BatchNorm2d) and id(inputs[0]) in made:
            norms[made[id(inputs[0])]] = layer

    layers = [layer for layer in model.modules() if isinstance(layer, (nn.Conv2d, nn.BatchNorm2d))]
    handles = [layer.register_forward_hook(watch) for layer in layers]
    try:
        with mode(model, training=False):
            for batch in looks:
                for kept in (ran, made, alive):
                    kept.clear()
                model(batch.images)
    finally:
        for handle in handles:
            handle.remove()
    if not norms and len(ran) == 1 and sum(isinstance(layer, nn.Linear) for layer in model.modules()) > 1:
        return []
    chosen = [layer for layer in ran if layer in norms] if norms else ran
    return [Channels(layer, norms.get(layer), sums[norms.get(layer, layer)] / len(looks)) for layer in chosen]
