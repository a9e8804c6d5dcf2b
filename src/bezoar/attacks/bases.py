"""What a triggerless attack starts from, and what must be right before anything is computed."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from bezoar.errors import SettingError
from bezoar.models.classifier import Classifier
from bezoar.records import Dataset
from bezoar.roles import Architecture


def base_rows(clean: Dataset, base_class: int, count: int) -> Int64[Tensor, "k"]:
    """The first rows of the base class; `check_bases` sees that there are so many."""
    return (clean.labels == base_class).nonzero()[:count, 0]


def check_bases(clean: Dataset, targets: Dataset, base_class: int, count: int) -> None:
    """See that the data have the bases that are asked for, and that the targets are something else.

    Raises:
        SettingError: there are too few, the targets are of that class already, or one is in the data.
    """
    if base_class >= len(clean.classes):
        raise SettingError(f"attack.base_class: {base_class} is no class; there are {len(clean.classes)}, from 0")
    name, there = clean.classes[base_class], int((clean.labels == base_class).sum())
    if count > there:
        raise SettingError(f"attack.poisons: {count} are too many; {name!r} has {there} images here")
    if bool((targets.labels == base_class).any()):
        raise SettingError(f"attack.base_class: a target is of the class {name!r} itself, so nothing would change")
    known = {fingerprint(image) for image in clean.images()}
    if any(fingerprint(image) in known for image in targets.images()):
        raise SettingError("targets: one is among the images that the victim trains on, and would be learnt by heart")


def check_substitutes(
    substitutes: Sequence[Classifier], networks: Sequence[Architecture], clean: Dataset, layers: int
) -> None:
    """See that the lab has the models that were asked for, and that they fit the data; they need not be trained.

    Raises:
        SettingError: they do not.
    """
    if not networks or len(substitutes) != len(networks):
        raise SettingError(f"attack.substitutes: {len(networks)} are needed, and the lab has {len(substitutes)}")
    image = torch.zeros(1, *clean.shape, device=substitutes[0].mean.device)
    for number, (one, network) in enumerate(zip(substitutes, networks, strict=True)):
        name = f"attack.substitutes: number {number} ({network.kind})"
        if len(one.classes) != len(clean.classes):
            raise SettingError(f"{name} knows {len(one.classes)} classes, and the data have {len(clean.classes)}")
        try:
            with torch.no_grad():
                one.layers(image, layers)
        except SettingError as error:
            raise SettingError(f"attack.layers: {error}; substitute number {number} is a {network.kind}") from None
        except RuntimeError as error:
            size = "x".join(map(str, clean.shape))
            raise SettingError(f"{name} does not take images of {size}: {str(error).splitlines()[0]}") from None


def fingerprint(image: UInt8[Tensor, "c h w"]) -> str:
    """What tells an image from every other one."""
    return blake2b(image.contiguous().numpy().tobytes(), digest_size=16).hexdigest()
