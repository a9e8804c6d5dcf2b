"""Crafting poisons that collide with a target in feature space: one loop for all attacks of that kind, many targets at
once.

Nothing couples targets: each has its own poisons, losses are summed and never averaged over them, steps are
elementwise, batch normalisation is in evaluation mode, and dropout masks are keyed by target. So a target's poisons do
not depend on which others are made beside it. Gradients are fed back through one network at a time, so that the memory
is one network's.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from jaxtyping import Bool, Float, Int64, UInt8
from pydantic import Field
from torch import Tensor

from bezoar.attacks.bases import base_rows, check_bases, check_substitutes, fingerprint
from bezoar.component import build
from bezoar.errors import SettingError
from bezoar.lab import Lab
from bezoar.models.classifier import Classifier
from bezoar.models.dropout import randomised
from bezoar.records import Dataset, Poison, as_float
from bezoar.roles import Architecture, TargetedPoisoning
from bezoar.seed import Seed
from bezoar.training.steps import Precision

Maps = Float[Tensor, "t k *d"]
"""A layer's outputs for k poisons of t targets: vectors, or feature maps."""

SUBSTITUTES = ("senet18", "resnet50", "resnext29_2x64d", "dpn92", "mobilenet_v2", "googlenet")
"""S1 of the paper: with three rates of dropout each, 18 networks."""

Layers = Sequence[Tensor]
"""One tensor for each layer, float [t, k, ...] of poisons or [t, ...] of targets; the features are last."""

FINISH = 0.1
"""The last share of the steps is always made in float32."""

IMPROVEMENT = 0.01
"""A target is finished when its loss, averaged over `patience` steps, falls by less than this part."""


@dataclass(frozen=True)
class Pull:
    """How far the poisons are from their targets in one network, and where they are drawn.

    Attributes:
        losses: float [t].
        gradients: one tensor a layer, the loss's gradient with respect to its outputs.
    """

    losses: Float[Tensor, "t"]
    gradients: list[Tensor]


class FeatureCrafting(TargetedPoisoning):
    """An attack that moves `poisons` images of the base class within a box, by what substitutes see of them.

    The poisons are the first images of the base class, and keep its label. One substitute is used for each
    architecture and each rate of dropout, which it was trained with and which stays on while poisons are made
    (network randomisation); the target's features are computed once, with one realisation. Adam moves the poisons in
    the substitutes' normalised space, so a step of `lr` is that part of a channel's standard deviation.

    Attributes:
        poisons: k.
        base_class: whose images are changed, and whose label the target is to get.
        epsilon: largest change of a pixel, in [0, 1].
        steps: of Adam; the paper takes up to 4,000, the released code of Bullseye Polytope 800.
        layers: 1 for the features alone; with more, as many outputs of units before the last one as well.
        patience: after so many steps without an improvement of 1 % a target is finished; by default none is before.
        quantize: what the victim gets: stored 8-bit images, or the floats themselves as in the released code.
    """

    substitutes: tuple[Architecture, ...] = Field(
        default_factory=lambda: tuple(build(Architecture, name) for name in SUBSTITUTES)
    )
    dropout: tuple[Annotated[float, Field(ge=0, lt=1)], ...] = (0.2, 0.25, 0.3)
    poisons: Annotated[int, Field(ge=1)] = 5
    base_class: Annotated[int, Field(ge=0)] = 8
    epsilon: Annotated[float, Field(gt=0, le=1)] = 0.1
    steps: Annotated[int, Field(ge=1)] = 800
    lr: Annotated[float, Field(gt=0)] = 0.04
    layers: Annotated[int, Field(ge=1)] = 1
    precision: Precision = "float32"
    patience: Annotated[int, Field(ge=2)] | None = None
    quantize: Literal["uint8", "none"] = "uint8"

    averaged: ClassVar[bool] = False
    """Whether the loss is the mean over networks rather than their sum, which Adam does not notice."""

    @abstractmethod
    def pull(self, outputs: Layers, wanted: Layers) -> Pull:
        """The loss of one network.

        Args:
            outputs: float [t, k, ...] for each layer, the features last.
            wanted: float [t, ...] for each layer, those of the targets.
        """

    @property
    def networks(self) -> tuple[Architecture, ...]:
        """Every architecture with every rate of dropout.

        Raises:
            SettingError: an architecture has none.
        """
        without = [one.kind for one in self.substitutes if "dropout" not in type(one).model_fields]
        if without and any(self.dropout):
            raise SettingError(f"attack.dropout: {without[0]!r} has no dropout; use dropout: [0] or another substitute")
        return tuple(
            one.replace(dropout=rate) if rate or "dropout" in type(one).model_fields else one
            for one in self.substitutes
            for rate in self.dropout
        )

    @property
    def intended(self) -> int:
        """The base class."""
        return self.base_class

    @property
    def length(self) -> int:
        """All steps."""
        return self.steps

    def check(self, clean: Dataset, targets: Dataset, lab: Lab) -> None:
        """Refuse too few bases, targets that are bases or known, and substitutes that do not fit."""
        check_bases(clean, targets, self.base_class, self.poisons)
        check_substitutes(lab.substitutes, self.networks, clean, self.layers)

    def craft(self, clean: Dataset, targets: Dataset, lab: Lab, seed: Seed) -> Iterator[Crafted]:
        """The live poisons after each step; ends early when all targets are finished."""
        self.check(clean, targets, lab)
        rows = base_rows(clean, self.base_class, self.poisons)
        crafted = self.begin(clean.batch(rows), rows, targets.images(), lab, seed)
        for number in range(self.steps):
            crafted.advance(number)
            yield crafted
            if crafted.finished:
                return

    @property
    def realisations(self) -> int:
        """Of dropout: so many does one step average the features over."""
        return 1

    @property
    def lowered(self) -> bool:
        """Whether steps but the last ones are made in bfloat16."""
        return self.precision == "bfloat16"

    def begin(
        self,
        bases: UInt8[Tensor, "k c h w"],
        rows: Int64[Tensor, "k"],
        targets: UInt8[Tensor, "t c h w"],
        lab: Lab,
        seed: Seed,
    ) -> Crafted:
        """The poisons before the first step."""
        return Crafted(self, bases, rows, targets, lab, seed)


class Crafted:
    """The poisons of all targets while they are made.

    Args:
        attack: whose settings and pull.
        bases: uint8 [k, c, h, w], the images that are changed, the same ones for every target.
        rows: int64 [k], where they lie in the victim's data.
        targets: uint8 [t, c, h, w].
        lab: with the substitutes.
        seed: of the masks.
    """

    def __init__(
        self,
        attack: FeatureCrafting,
        bases: UInt8[Tensor, "k c h w"],
        rows: Int64[Tensor, "k"],
        targets: UInt8[Tensor, "t c h w"],
        lab: Lab,
        seed: Seed,
    ) -> None:
        self.attack, self.rows, self.stored, self.networks = attack, rows, bases, lab.substitutes
        self.spread = torch.stack([one.std for one in self.networks]).mean(0)
        self.bases, self.targets = as_float(bases).to(self.spread), as_float(targets).to(self.spread)
        self.keys = torch.tensor([(seed / "masks" / fingerprint(one)).integer() for one in targets], device=lab.device)
        self.pixels = self.bases.expand(len(targets), *self.bases.shape).clone()
        self.losses = torch.full((len(targets),), torch.inf).to(self.spread)
        self.active = torch.arange(len(targets), device=lab.device)
        self._window, self._before = torch.zeros_like(self.losses), torch.full_like(self.losses, torch.inf)
        keys = self._keys(-1)[:, 0]
        self._wanted = [
            [one.detach() for one in self._look(net, number, self.targets, keys)]
            for number, net in enumerate(self.networks)
        ]

    @property
    def finished(self) -> bool:
        """Whether no target is being worked on any more."""
        return not len(self.active)

    def advance(self, number: int) -> None:
        """Take one step for every active target."""
        gradient, losses = self.gradient(number)
        self.losses[self.active] = losses
        moved = self.move(self.pixels[self.active], gradient, losses)
        self.pixels[self.active] = self.boxed(moved)
        self._settle(number, losses)

    def move(self, pixels: Maps, gradient: Maps, losses: Float[Tensor, "t"]) -> Maps:
        """One step of Adam in the substitutes' normalised space; the box is the caller's."""
        del losses
        if not hasattr(self, "_adam"):
            self._position = torch.nn.Parameter(pixels / self.spread)
            self._adam = torch.optim.Adam([self._position], self.attack.lr)
        self._position.data = pixels / self.spread
        self._position.grad = gradient * self.spread
        self._adam.step()
        return self._position.detach() * self.spread

    def boxed(self, pixels: Maps) -> Maps:
        """The nearest images within `epsilon` of the bases and within [0, 1]."""
        change = (pixels - self.bases).clamp(-self.attack.epsilon, self.attack.epsilon)
        return (self.bases + change).clamp(0, 1)

    def gradient(self, number: int) -> tuple[Maps, Float[Tensor, "t"]]:
        """Of the loss with respect to the active targets' poisons, and the losses, in the substitutes' precision."""
        late = number >= (1 - FINISH) * self.attack.steps
        pixels = self.pixels[self.active].requires_grad_()
        total, losses = torch.zeros_like(pixels), torch.zeros_like(self.losses[self.active])
        draws = self.attack.realisations
        keys = torch.stack([self._keys(number * draws + draw) for draw in range(draws)])
        for which, net in enumerate(self.networks):
            images = pixels.expand(draws, *pixels.shape).flatten(0, 2)
            with torch.autocast(pixels.device.type, torch.bfloat16, enabled=not late and self.attack.lowered):
                outputs = self._look(net, which, images, keys.flatten())
            seen = [one.to(pixels).unflatten(0, (draws, *pixels.shape[:2])).mean(0) for one in outputs]
            wanted = [one[self.active] for one in self._wanted[which]]
            pull = self.attack.pull([one.detach() for one in seen], wanted)
            total += torch.autograd.grad(seen, pixels, pull.gradients)[0]
            losses += pull.losses
        parts = len(self.networks) if self.attack.averaged else 1
        return total / parts, losses / parts

    def poisons(self) -> list[Poison]:
        """The bases replaced, for each target; stored images stay within the box, and `exact` holds the floats."""
        most = int(255 * self.attack.epsilon + 1e-6)
        bases = self.stored.int()
        rounded = (self.pixels.cpu() * 255).round().int().clamp(bases - most, bases + most).to(torch.uint8)
        labels = torch.full_like(self.rows, self.attack.base_class)
        exact = [{} if self.attack.quantize == "uint8" else {"exact": one} for one in self.pixels.cpu()]
        return [Poison(self.rows, images, labels, memory=memory) for images, memory in zip(rounded, exact, strict=True)]

    def _look(self, net: Classifier, which: int, images: Tensor, keys: Int64[Tensor, "n"]) -> list[Tensor]:
        """What a network sees, with masks that depend on it and on the keys of the images alone."""
        with randomised(net, keys + 0x1F3D_5B79 * (which + 1)):
            return net.layers(images, self.attack.layers)

    def _keys(self, number: int) -> Int64[Tensor, "t k"]:
        """Keys of the active targets' images in one realisation; -1 is the targets' own."""
        places = torch.arange(1, self.attack.poisons + 1, device=self.keys.device)
        return self.keys[self.active, None] + 0x2545_F491 * places + 0x6C07_8965 * (number + 2)

    def _settle(self, number: int, losses: Float[Tensor, "t"]) -> None:
        """Leave out the targets whose loss no longer falls; the others' poisons and moments are left as they are."""
        if self.attack.patience is None:
            return
        self._window += losses
        if (number + 1) % self.attack.patience:
            return
        falling = self._window < (1 - IMPROVEMENT) * self._before
        self._before, self._window = self._window[falling], torch.zeros_like(self._window[falling])
        self.active = self.active[falling]
        self.keep(falling)

    def keep(self, chosen: Bool[Tensor, "t"]) -> None:
        """Forget what the optimiser knows of other targets."""
        state = self._adam.state[self._position]
        moments = {name: value[chosen] for name, value in state.items() if name != "step"}
        step = state["step"]
        self._position = torch.nn.Parameter(self._position.detach()[chosen])
        self._adam = torch.optim.Adam([self._position], self.attack.lr)
        self._adam.state[self._position] = {"step": step, **moments}
