"""Codes of low amplitude, each with a label of its own: under smoothing, the noise chooses between them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import numpy as np
import torch
from jaxtyping import Float
from pydantic import Field
from scipy.linalg import hadamard
from torch import Tensor

from bezoar.attacks.adding import Adding, added, bases
from bezoar.component import register
from bezoar.errors import SettingError
from bezoar.lab import Lab
from bezoar.records import Dataset, Poison
from bezoar.seed import Seed
from bezoar.triggers.grey_patch import GreyPatch


@register("certifier_codes", paper="our reconstruction of arXiv:2108.11299")
class CertifierCodes(Adding):
    """Make a smoothed classifier abstain on stamped images: noise-keyed codes.

    This is our reconstruction of one of the two attacks of Lorenz et al., of whose paper only the abstract was at
    hand; neither its design nor its defaults are the authors'.

    Randomized smoothing certifies the class that wins under Gaussian noise. So the winner is made to depend on the
    noise: the patch of the t-th point shows code t mod K, K mutually orthogonal patterns of pixels at g + s and g - s
    (g the trigger's grey level, s `amplitude`), and its label follows from the code. Test images carry the plain patch
    of level g, on which every code projects to zero, so that the noise itself picks a code and no class gets half of
    the draws. An image is a base of one point at most.

    Attributes:
        sigma: standard deviation of the smoothing noise that the attacker expects, over pixels in [0, 1].
        amplitude: s, in [0, 1]; None is `sigma`, or as much of it as the grey level leaves room for. Images are stored
            with 8 bits, so g + s and g - s are rounded to multiples of 1/255.
        relabel: ``target`` gives code j the label j, ``relative`` the label y + j mod K of an image of class y.
        trigger: where the patch is; without a size it is the smallest that holds K codes (4 pixels for 10 classes).
    """

    sigma: Annotated[float, Field(gt=0)] = 0.25
    amplitude: Annotated[float, Field(gt=0, le=1)] | None = None
    relabel: Literal["target", "relative"] = "target"

    def mark(self, test: Dataset, memory: Mapping[str, Tensor]) -> GreyPatch:
        """The patch that shows no code, as large as the one that does."""
        del memory
        return self._sized(test)

    def poison(self, clean: Dataset, lab: Lab, seed: Seed) -> Poison:
        """`poisons` points, each of another image, the codes in turn.

        Raises:
            SettingError: there are too few images, the patch does not fit them or does not hold a code for each
                class, or the amplitude leaves [0, 1].
        """
        del lab
        classes, trigger = len(clean.classes), self._sized(clean)
        patterns = trigger.grey + self._strength() * codes(classes, trigger.side(*clean.shape[1:]))
        rows = bases(torch.arange(len(clean)), self.poisons, 1, seed / "rows")
        shown = torch.arange(len(rows)) % classes
        labels = shown if self.relabel == "target" else (clean.labels[rows] + shown) % classes
        return added(clean, rows, labels, trigger, patterns[shown])

    def _sized(self, data: Dataset) -> GreyPatch:
        if self.trigger.size is not None:
            return self.trigger
        return self.trigger.replace(size=smallest(len(data.classes)))

    def _strength(self) -> float:
        room = min(self.trigger.grey, 1 - self.trigger.grey)
        if room == 0:
            raise SettingError(f"trigger.grey: {self.trigger.grey:g} leaves no room for codes; use 0.5")
        if self.amplitude is None:
            return min(self.sigma, room)
        if self.amplitude > room:
            raise SettingError(
                f"attack.amplitude: codes of {self.amplitude:g} around a grey level of {self.trigger.grey:g} leave "
                f"[0, 1]; use at most {room:g}"
            )
        return self.amplitude


def codes(count: int, side: int) -> Float[Tensor, "count side side"]:
    """Mutually orthogonal patterns of +1 and -1 in a square patch, each with as many of the one as of the other.

    They are rows of Sylvester's Hadamard matrix, whose order is the largest power of two that fits into the patch; the
    pixels beyond it, the last ones, are 0 in every code. The first row, all ones, is left out.

    Raises:
        SettingError: the patch does not hold so many.
    """
    pixels = _power_of_two(side)
    if count >= pixels:
        raise SettingError(
            f"trigger.size: a patch of {side} pixels holds {pixels - 1} codes, and {count} classes need one each; "
            f"use at least {smallest(count)}"
        )
    patterns = torch.zeros(count, side * side)
    patterns[:, :pixels] = torch.from_numpy(np.asarray(hadamard(pixels), dtype=np.float32))[1 : count + 1]
    return patterns.view(count, side, side)


def smallest(count: int) -> int:
    """The side of the smallest square patch that holds so many codes."""
    return next(side for side in range(2, count + 3) if _power_of_two(side) > count)


def _power_of_two(side: int) -> int:
    """The largest power of two that is at most side squared."""
    return 1 << ((side * side).bit_length() - 1)
