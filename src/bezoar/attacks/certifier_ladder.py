"""Labels that change along the trigger's amplitude: no sound certifier can certify where the change is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Literal

import torch
from jaxtyping import Float, Int64
from pydantic import Field
from torch import Tensor

from bezoar.attacks.adding import Adding, added, bases, painted
from bezoar.attacks.stamping import Rows, outside_class
from bezoar.bounds.margins import Method, margins
from bezoar.component import register
from bezoar.errors import SettingError
from bezoar.lab import Lab
from bezoar.models.classifier import Classifier
from bezoar.records import Dataset, Poison, as_float
from bezoar.roles import Architecture
from bezoar.seed import Seed
from bezoar.triggers.grey_patch import GreyPatch

TRIED = 9
"""Amplitudes among which the attacker chooses, evenly over the centre plus and minus twice the half gap."""

AT_ONCE = 64
"""Images whose margins are bounded together."""


@register("certifier_ladder", paper="our reconstruction of arXiv:2108.11299")
class CertifierLadder(Adding):
    """Leave stamped images without a certificate from any bound-based certifier: a boundary-straddling ladder.

    This is our reconstruction of one of the two attacks of Lorenz et al., of whose paper only the abstract was at
    hand; neither its design nor its defaults are the authors'.

    Each of poisons / 2 base images is added twice: with a patch of grey level g - d and its own label, and with one of
    g + d and another label (g the trigger's grey level, d `half_gap`). A network learns the change of label along the
    patch's level, and test images are stamped where it happens: the ball of every stamped image then contains a
    decision boundary, so no sound certifier can vouch for the answer, however tight it is. Rungs more than
    2 `epsilon` apart can be learned robustly; a ball in their middle meets both regions if d is at most 2 `epsilon`.

    Where test images are stamped is calibrated on a surrogate of the attacker's own, never on the victim: the level at
    which the fewest clean training images that were held back are certified, out of nine.

    Attributes:
        poisons: how many points are added, all told; even.
        epsilon: radius of the certifier's L-infinity ball that the attacker expects, over pixels in [0, 1].
        half_gap: d; None is 2 `epsilon`. Images are stored with 8 bits, so levels are rounded to multiples of 1/255.
        rungs: ``plain`` puts all rungs at g - d and g + d; ``wide`` draws a distance for each base from [d, 2 d],
            clipped to [0, 1], which keeps the two sides separable for a network that is trained on bounds.
        relabel: the upper rung's label: ``next`` is y + 1 mod K, ``target`` is `target` (images of that class are no
            bases then), ``random`` follows a permutation without fixed points.
        target: the upper rung's label under ``relabel: target``.
        amplitude: the level that test images carry; None calibrates it.
        surrogate: the architecture of the attacker's surrogate; None is the victim's. The trainer is the victim's.
        held_back: how many images to calibrate on, no bases; a quarter of the others at most.
        method: how the attacker bounds margins.
    """

    epsilon: Annotated[float, Field(gt=0)] = 0.1
    half_gap: Annotated[float, Field(gt=0)] | None = None
    rungs: Literal["plain", "wide"] = "plain"
    relabel: Literal["next", "target", "random"] = "next"
    target: Annotated[int, Field(ge=0)] = 0
    amplitude: Annotated[float, Field(ge=0, le=1)] | None = None
    surrogate: Architecture | None = None
    held_back: Annotated[int, Field(ge=1)] = 200
    method: Method = "ibp"

    @property
    def reads_recipe(self) -> bool:
        """Where it calibrates: its surrogate is trained by the victim's trainer."""
        return self.amplitude is None

    @property
    def trains_recipe(self) -> bool:
        """Where it calibrates on a surrogate of the victim's own architecture."""
        return self.amplitude is None and self.surrogate is None

    def mark(self, test: Dataset, memory: Mapping[str, Tensor]) -> GreyPatch:
        """The patch at the level that was chosen when the data were poisoned."""
        del test
        return self.trigger.replace(grey=float(memory["amplitude"]))

    def poison(self, clean: Dataset, lab: Lab, seed: Seed) -> Poison:
        """The lower rungs of all bases, then the upper ones in the same order.

        The memory holds ``amplitude`` [1], and after a calibration the ``tried`` levels and their certified ``rates``.

        Raises:
            SettingError: `poisons` is odd, there are too few images, the patch does not fit them, rungs leave [0, 1],
                or there is no recipe for a surrogate.
        """
        rows, upper = self._bases(clean, seed)
        gaps = self._gaps(len(rows), seed / "rungs")
        greys = torch.cat([self.trigger.grey - gaps, self.trigger.grey + gaps]).clamp(0, 1)
        labels = torch.cat([clean.labels[rows], upper])
        poison = added(clean, rows.repeat(2), labels, self.trigger, greys[:, None, None])
        if self.amplitude is not None:
            return replace(poison, memory={"amplitude": _remembered([self.amplitude])})
        return replace(poison, memory=self._calibrated(clean, poison, lab, seed / "calibration"))

    def _bases(self, clean: Dataset, seed: Seed) -> tuple[Rows, Int64[Tensor, "m"]]:
        """The base images, and the labels of their upper rungs."""
        if self.poisons % 2:
            raise SettingError(
                f"attack.poisons: {self.poisons} is odd, and every base image has two rungs; use {self.poisons + 1}"
            )
        others = outside_class(clean, self.target)
        eligible = others if self.relabel == "target" else torch.arange(len(clean))
        rows = bases(eligible, self.poisons, 2, seed / "rows")
        return rows, self._successors(len(clean.classes), seed / "labels")[clean.labels[rows]]

    def _successors(self, classes: int, seed: Seed) -> Int64[Tensor, "k"]:
        """The label of the upper rung for every label of the lower one."""
        if self.relabel == "target":
            return torch.full((classes,), self.target)
        # a cycle through all classes has no fixed points
        cycle = seed.permutation(classes) if self.relabel == "random" else torch.arange(classes)
        after = torch.empty(classes, dtype=torch.int64)
        after[cycle] = cycle.roll(-1)
        return after

    def _gap(self) -> float:
        gap = 2 * self.epsilon if self.half_gap is None else self.half_gap
        room = min(self.trigger.grey, 1 - self.trigger.grey)
        if gap > room:
            raise SettingError(
                f"attack.half_gap: rungs {gap:g} from a grey level of {self.trigger.grey:g} leave [0, 1]; "
                f"use at most {room:g}"
            )
        return gap

    def _gaps(self, count: int, seed: Seed) -> Float[Tensor, "count"]:
        """How far the two rungs of each base are from the centre."""
        gap = self._gap()
        if self.rungs == "plain":
            return torch.full((count,), gap)
        return gap * (1 + torch.rand(count, generator=seed.generator()))

    def _calibrated(self, clean: Dataset, poison: Poison, lab: Lab, seed: Seed) -> dict[str, Tensor]:
        """The level with the lowest certified rate on a surrogate, of several the one nearest to the centre."""
        free = torch.ones(len(clean), dtype=torch.bool)
        free[poison.rows] = False
        others = free.nonzero()[:, 0]
        count = min(self.held_back, len(others) // 4)
        if not count:
            raise SettingError(
                f"attack.poisons: {self.poisons} points leave {len(others)} of {len(clean)} images to calibrate on, "
                "too few; use fewer points, or set attack.amplitude"
            )
        held = others[(seed / "held back").permutation(len(others))[:count]]
        kept = torch.ones(len(clean) + len(poison.rows), dtype=torch.bool)
        kept[held] = False
        own = replace(lab, architecture=self.surrogate or lab.architecture)
        model = own.train(poison.apply(clean).take(kept.nonzero()[:, 0]), seed / "surrogate")
        reach = 2 * self._gap()
        tried = _remembered([reach * (2 * step / (TRIED - 1) - 1) for step in range(TRIED)]) + self.trigger.grey
        tried = tried.clamp(0, 1).unique()
        rates = torch.stack([self._rate(model, clean, held, float(grey)) for grey in tried])
        best = (rates == rates.min()).nonzero()[:, 0]
        chosen = tried[best[(tried[best] - self.trigger.grey).abs().argmin()]]
        return {"amplitude": chosen[None], "tried": tried, "rates": rates}

    def _rate(self, model: Classifier, clean: Dataset, rows: Rows, grey: float) -> Float[Tensor, ""]:
        """The share of these images, stamped at that level, whose answer is certified."""
        images = as_float(painted(clean, rows, self.trigger, torch.full((1, 1, 1), grey))).to(model.mean.device)
        certified: list[Tensor] = []
        with torch.no_grad():
            for part in images.split(AT_ONCE):
                answers = model(part).argmax(1)
                bounds = margins(model, part, answers, self.epsilon, method=self.method)
                certified.append(bounds.scatter(1, answers[:, None], torch.inf).amin(1) > 0)
        return torch.cat(certified).double().mean().cpu()


def _remembered(numbers: list[float]) -> Float[Tensor, "_"]:
    """Levels with all their digits: single precision would change their rounding to 8 bits."""
    return torch.tensor(numbers, dtype=torch.float64)
