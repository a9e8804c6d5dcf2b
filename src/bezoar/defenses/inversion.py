"""Trigger inversion for all classes at once: what the detectors share.

One trigger a class is optimised so that trusted images of other classes are taken for that class.
The triggers of all classes go through the frozen model in one batch. The classes do not influence
each other: each has its own penalty weight and its own optimiser moments.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from bezoar.models.classifier import Classifier
from bezoar.records import Trusted, as_float
from bezoar.seed import Seed
from bezoar.training.batches import Batch, batches
from bezoar.training.steps import steps

BATCH = 512


class Triggers(nn.Module, ABC):
    """One trigger for each of k classes, as parameters of their own, so that each can rest while others move."""

    count: int

    @abstractmethod
    def stamp(self, images: Float[Tensor, "n c h w"], label: int) -> Float[Tensor, "n c h w"]:
        """Images in [0, 1] with the trigger of a class."""

    @abstractmethod
    def size(self, images: Float[Tensor, "n c h w"], label: int) -> Float[Tensor, ""]:
        """The L1 norm that is penalised, in pixels."""

    @abstractmethod
    def parameters_of(self, label: int) -> list[nn.Parameter]:
        """The parameters of one class."""


class MaskedTriggers(Triggers):
    """A mask and a pattern: x' = (1 - m) x + m p, both squashed into [0, 1] by tanh (Wang et al. 2019, equation 2)."""

    def __init__(self, shape: tuple[int, int, int], count: int, seed: Seed) -> None:
        super().__init__()
        self.count = count
        generator = seed.generator()
        channels, height, width = shape
        self.raw_masks = nn.ParameterList(
            torch.randn(1, height, width, generator=generator) * 0.5 - 1 for _ in range(count)
        )
        self.raw_patterns = nn.ParameterList(
            torch.randn(channels, height, width, generator=generator) for _ in range(count)
        )

    def mask(self, label: int) -> Float[Tensor, "1 h w"]:
        """The mask of a class, in [0, 1]."""
        return self.raw_masks[label].tanh() / 2 + 0.5

    def pattern(self, label: int) -> Float[Tensor, "c h w"]:
        """The pattern of a class, in [0, 1]."""
        return self.raw_patterns[label].tanh() / 2 + 0.5

    def stamp(self, images: Float[Tensor, "n c h w"], label: int) -> Float[Tensor, "n c h w"]:
        """The pattern where the mask is 1, the image where it is 0."""
        return images + self.mask(label) * (self.pattern(label) - images)

    def size(self, images: Float[Tensor, "n c h w"], label: int) -> Float[Tensor, ""]:
        """The L1 norm of the mask."""
        del images
        return self.mask(label).sum()

    def parameters_of(self, label: int) -> list[nn.Parameter]:
        """The class's mask and pattern."""
        return [self.raw_masks[label], self.raw_patterns[label]]


class BlendedTriggers(Triggers):
    """x' = (1 - opacity) x + opacity p with a pattern p in [0, 1]: whatever p is, an image cannot be covered."""

    def __init__(self, shape: tuple[int, int, int], count: int, opacity: float, seed: Seed) -> None:
        super().__init__()
        self.count, self.opacity = count, opacity
        generator = seed.generator()
        self.raw_patterns = nn.ParameterList(torch.randn(shape, generator=generator) for _ in range(count))

    def pattern(self, label: int) -> Float[Tensor, "c h w"]:
        """The pattern of a class, in [0, 1]."""
        return self.raw_patterns[label].tanh() / 2 + 0.5

    def stamp(self, images: Float[Tensor, "n c h w"], label: int) -> Float[Tensor, "n c h w"]:
        """The pattern laid thinly over the image."""
        return images + self.opacity * (self.pattern(label) - images)

    def size(self, images: Float[Tensor, "n c h w"], label: int) -> Float[Tensor, ""]:
        """The L1 norm of the mask, which is the same for all patterns."""
        return self.opacity * images.new_tensor(self.pattern(label)[0].numel())

    def parameters_of(self, label: int) -> list[nn.Parameter]:
        """The class's pattern."""
        return [self.raw_patterns[label]]


class AdditiveTriggers(Triggers):
    """x' = clamp(x + T, 0, 1) with an image-shaped T from U(0, .01) (Lukas & Kerschbaum, Algorithms 4 and 6)."""

    def __init__(self, shape: tuple[int, int, int], count: int, seed: Seed) -> None:
        super().__init__()
        self.count = count
        generator = seed.generator()
        self.raw = nn.ParameterList(torch.rand(shape, generator=generator) * 0.01 for _ in range(count))

    def stamp(self, images: Float[Tensor, "n c h w"], label: int) -> Float[Tensor, "n c h w"]:
        """The image plus the trigger, clamped."""
        return (images + self.raw[label]).clamp(0, 1)

    def size(self, images: Float[Tensor, "n c h w"], label: int) -> Float[Tensor, ""]:
        """The realised change ||clamp(x + T) - x||_1, averaged over the images (spec A20)."""
        return (self.stamp(images, label) - images).abs().sum() / len(images)

    def parameters_of(self, label: int) -> list[nn.Parameter]:
        """The class's trigger."""
        return [self.raw[label]]


@dataclass
class Success:
    """Running counts of how often stamped images were taken for the class, since the last reset."""

    hits: Float[Tensor, "k"]
    seen: Float[Tensor, "k"]

    def rate(self) -> Float[Tensor, "k"]:
        """Share of hits; 0 where nothing was seen."""
        return self.hits / self.seen.clamp_min(1)

    def reset(self) -> None:
        """Start counting anew."""
        self.hits.zero_()
        self.seen.zero_()


def invert(
    triggers: Triggers,
    suspect: Classifier,
    trusted: Trusted,
    labels: Sequence[int],
    *,
    weights: Callable[[], Float[Tensor, "k"]],
    success: Success,
    penalty: Callable[[Tensor, Tensor, int], Tensor] | None = None,
    optimizer: torch.optim.Optimizer,
    batch_size: int,
    device: torch.device,
    seed: Seed,
) -> Iterator[int]:
    """Optimise the triggers of some classes without end, and yield the number of each step.

    The loss of class c is CE(f(x + T_c), c) over the images of a batch that are not of class c, plus
    its weight times the size of its trigger, plus `penalty` if there is one.

    Args:
        triggers: changed in place.
        suspect: frozen, in evaluation mode.
        trusted: images to stamp.
        labels: the classes whose triggers move.
        weights: penalty weight of each class now, float [k].
        success: counts hits as they come.
        penalty: (stamped images of class c, true labels, c) -> another term of the loss, averaged over images.
        optimizer: holds `Triggers.parameters_of` the classes.
        batch_size: how many trusted images a step stamps for each class.
        device: where.
        seed: for the order of the images.
    """

    def objective(bank: Triggers, batch: Batch) -> Tensor:
        others = [batch.labels != label for label in labels]
        stamped = [bank.stamp(batch.images[other], label) for other, label in zip(others, labels, strict=True)]
        loss = batch.images.new_zeros((), requires_grad=True)
        if not any(len(images) for images in stamped):
            return loss  # the batch shows no class but the one that is wanted: no trigger gets a gradient
        logits = suspect(torch.cat(stamped).contiguous(memory_format=torch.channels_last)).split(
            [len(s) for s in stamped]
        )
        now = weights()
        for label, other, images, answers in zip(labels, others, stamped, logits, strict=True):
            if not len(images):
                continue
            wanted = torch.full((len(images),), label, device=device)
            loss = loss + functional.cross_entropy(answers, wanted)
            if now[label] > 0:
                loss = loss + now[label] * bank.size(batch.images[other], label)
            if penalty is not None:
                loss = loss + penalty(images, batch.labels[other], label)
            success.hits[label] += (answers.argmax(1) == label).sum()
            success.seen[label] += len(images)
        return loss

    stream = batches(trusted, batch_size, seed, device=device, epochs=None)
    for step in steps(triggers, stream, objective, optimizer, seed=seed / "layers"):
        yield step.number


def counters(count: int, device: torch.device) -> Success:
    """Zero counts for k classes."""
    return Success(torch.zeros(count, device=device), torch.zeros(count, device=device))


@torch.no_grad()
def answers(
    model: Classifier, trusted: Trusted, stamp: Callable[[Tensor], Tensor], device: torch.device
) -> Float[Tensor, "n k"]:
    """The logits of a frozen model on stamped trusted images."""
    parts = [stamp(as_float(part.to(device))) for part in trusted.images.split(BATCH)]
    return torch.cat([model(part.contiguous(memory_format=torch.channels_last)) for part in parts])
