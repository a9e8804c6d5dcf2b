"""Mask and recertify: an answer is vouched for if it stands whichever part of the image is hidden."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations_with_replacement
from typing import Annotated, Literal

import torch
from jaxtyping import Bool, Float
from pydantic import Field, model_validator
from torch import Tensor

from bezoar.certifiers.bounds import Bounds
from bezoar.certifiers.queries import require_pixels
from bezoar.component import register
from bezoar.errors import SettingError
from bezoar.lab import Lab
from bezoar.models.classifier import Classifier
from bezoar.records import Certificates, Norm
from bezoar.roles import Certifier
from bezoar.seed import Seed

GREY = 0.5
"""What stands where an image is hidden."""


@register("masking", paper="arXiv:2108.09135")
class Masking(Certifier):
    """Certificates of a vote over copies of the image in each of which squares are hidden (ours).

    Another certifier judges every copy, and the vote is certified as far as enough copies are. A backdoor whose
    trigger is small then meets copies that do not show it. The certificate is of the voted classifier, so a deployment
    has to vote as well; it says nothing of the bare model.

    It is sound because hiding pixels is no farther from hiding them in a changed image than the images are from each
    other, in any norm: within the radius r, each copy that is certified at r for class c keeps that class. With
    ``rule: majority`` the vote answers the class of more than a `share` of the m copies with one square hidden,
    and is certified at the largest r at which more than that share are. That cannot help against a trigger that most
    squares leave in sight, which is what small squares do. With ``rule: double`` copies have two squares hidden, as in
    PatchCleanser's second round (Xiang et al., USENIX Security 2022): the vote answers c if for some square i the
    copies (i, j) have the class c for all j, itself included, and is certified at r if they all are. Two squares
    cannot stand up for two classes, for both would hold the copy (i, j), so at most one class is answered; and one
    square that hides the trigger is enough, if the model can do without what two hide.

    With an inner certifier that errs with probability alpha (smoothing), one certificate here errs with m alpha at
    most, or with m (m + 1) / 2 alpha for pairs, since it is wrong only if one of the copies' is. Bounds do not err.

    Attributes:
        certifier: judges the copies; norm, demanded radius and methods are its own.
        size: side of a hidden square, in pixels; half of the image's shorter side if not given.
        patch: every square of this side lies wholly within one of the hidden ones, which are size - patch + 1 apart
            or nearer; half of `size`, rounded up, if not given.
        share: of the copies that must agree under ``rule: majority``; more than this, strictly.
    """

    certifier: Certifier = Bounds()
    size: Annotated[int, Field(ge=1)] | None = None
    patch: Annotated[int, Field(ge=1)] | None = None
    rule: Literal["majority", "double"] = "double"
    share: Annotated[float, Field(ge=0.5, lt=1)] = 0.5

    @model_validator(mode="after")
    def _hides_patches(self) -> Masking:
        if self.size is not None and self.patch is not None and self.patch > self.size:
            raise ValueError(
                f"patch: a square of {self.patch} pixels is not hidden by one of size={self.size}; "
                f"choose a patch of at most {self.size} or a larger size"
            )
        return self

    @property
    def norm(self) -> Norm:
        """The inner certifier's."""
        return self.certifier.norm

    @property
    def demanded(self) -> float:
        """The inner certifier's."""
        return self.certifier.demanded

    def masks(self, height: int, width: int) -> Bool[Tensor, "m 1 h w"]:
        """What each mask hides, in rows from the top left: as few as hide every square of `patch` pixels.

        Raises:
            SettingError: a mask would hide the whole image, or is smaller than the patch.
        """
        shorter = min(height, width)
        size = max(1, shorter // 2) if self.size is None else self.size
        patch = (size + 1) // 2 if self.patch is None else self.patch
        if size >= shorter:
            raise SettingError(
                f"certifier.size: a mask of {size} pixels leaves nothing of images of {height}x{width} in one "
                f"direction; choose at most {shorter - 1}"
            )
        if patch > size:
            raise SettingError(
                f"certifier.patch: a square of {patch} pixels is not hidden by a mask of {size} (half of images of "
                f"{height}x{width}); choose at most {size}, or a larger size"
            )
        tops, lefts = (_starts(length, size, size - patch + 1) for length in (height, width))
        hidden = torch.zeros(len(tops) * len(lefts), 1, height, width, dtype=torch.bool)
        for number, (top, left) in enumerate((top, left) for top in tops for left in lefts):
            hidden[number, :, top : top + size, left : left + size] = True
        return hidden

    def require(self, model: Classifier, shape: tuple[int, int, int]) -> None:
        """Refuse images that the masks do not fit, and what the inner certifier refuses.

        Raises:
            SettingError: a mask would hide the whole image, or the inner certifier refuses the model.
        """
        self.masks(*shape[1:])
        self.certifier.require(model, shape)

    def certify(self, model: Classifier, images: Float[Tensor, "n c h w"], lab: Lab, seed: Seed) -> Certificates:
        """What the vote proves; the evidence is the share of copies that are certified for its class.

        Under ``rule: double`` that is the share of the copies with the square that most stand up for. An image's
        predicted class is what the vote answers, certified or not, and -1 where it answers nothing.

        Raises:
            DataError: an image has values outside [0, 1].
            SettingError: the masks do not fit the images, or the inner certifier refuses the model.
        """
        require_pixels(images)
        masks = self.masks(*images.shape[2:])
        numbers = range(len(masks))
        pairs = list(combinations_with_replacement(numbers, 2)) if self.rule == "double" else [(i, i) for i in numbers]
        found: list[Certificates] = []
        for first, second in lab.progress.track(pairs, "masks", len(pairs)):
            hidden = (masks[first] | masks[second]).to(images.device)
            copy = torch.where(hidden, GREY, images)
            found.append(self.certifier.certify(model, copy, lab, seed / "mask" / first / second))
        if self.rule == "majority":
            return by_majority(found, self.share)
        rows = [[found[pairs.index((min(i, j), max(i, j)))] for j in numbers] for i in numbers]
        return undisputed(rows)


def by_majority(copies: Sequence[Certificates], share: float) -> Certificates:
    """The certificates of the vote that answers the class of more than a `share`, at least .5, of the copies."""
    needed = math.floor(share * len(copies) + 1e-9) + 1
    predicted, radius, certified, method = stacked(copies)
    answer = predicted.mode(0).values
    agree = (predicted == answer) & (answer >= 0)
    answer = answer.where(agree.sum(0) >= needed, -1)
    agree &= answer >= 0
    reached = radius.where(agree, 0).sort(0, descending=True).values[needed - 1]
    vouched = agree & certified
    used = method.where(agree & (radius >= reached) & (reached > 0), -1).amax(0)
    shares = vouched.sum(0) / len(copies)
    return Certificates(
        answer, reached, vouched.sum(0) >= needed, shares.to(reached), used, copies[0].methods, copies[0].norm
    )


def undisputed(rows: Sequence[Sequence[Certificates]]) -> Certificates:
    """The certificates of the vote that answers a class if it is that of a whole row of copies.

    Args:
        rows: m rows of m, of which copy j of row i is copy i of row j, so that no two rows can be of two classes.
    """
    stacks = [stacked(row) for row in rows]
    predicted, radius, certified, method = (torch.stack(parts) for parts in zip(*stacks, strict=True))
    whole = ((predicted == predicted[:, :1]) & (predicted >= 0)).all(1)
    answer = predicted[:, 0].where(whole, -1).amax(0)
    reached = radius.amin(1).where(whole, 0)
    best = reached.argmax(0, keepdim=True)
    radii = reached.gather(0, best)[0]
    used = method.amax(1).gather(0, best)[0].where(radii > 0, -1)
    agree = (predicted == predicted.mode(1, keepdim=True).values) & (predicted >= 0)
    shares = (agree & certified).double().mean(1).amax(0)
    vouched = (whole & certified.all(1)).any(0)
    return Certificates(answer, radii, vouched, shares.to(radii), used, rows[0][0].methods, rows[0][0].norm)


def stacked(
    copies: Sequence[Certificates],
) -> list[Tensor]:
    """Classes, radii, whether certified, and methods, each [m, n]."""
    parts = ([each.predicted, each.radius, each.certified, each.method] for each in copies)
    return [torch.stack(part) for part in zip(*parts, strict=True)]


def _starts(length: int, size: int, stride: int) -> list[int]:
    return [*range(0, length - size, stride), length - size]
