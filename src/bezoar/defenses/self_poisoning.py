"""A defender's own backdoor in a copy of the suspect: what it knows all about, it can measure a defence on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from bezoar.defenses.repairers.weight_decay import WeightDecay
from bezoar.lab import Lab
from bezoar.measure.predictions import predict
from bezoar.models.classifier import Classifier
from bezoar.records import Trusted, as_float, as_stored
from bezoar.seed import Seed

POISONED = 0.5
"""The share of trusted images of other classes of which the defender adds a stamped copy (A25)."""

LEARNT = 0.95
"""The defender's copy is poisoned well enough once so many of those obey the trigger."""

KEPT = 0.02
"""So much accuracy on the trusted images the copy may lose while it is poisoned, or it is no model with a backdoor."""

EPOCHS, LEAST_STEPS = 20, 100
"""After so many epochs, and so many steps where epochs are short, it has to do as it is."""

TAKEN = 0.5
"""A planted backdoor that works less often than this on images that it was not taught with has not taken."""

FINE = WeightDecay(lr=0.01, weight_decay=0, augmentation="none")
"""How the defender poisons its copy: plain fine-tuning (A25)."""


@dataclass(frozen=True)
class OwnTrigger:
    """The defender's own backdoor: a patch of noise in a corner, and the class that it is to lead to."""

    patch: Float[Tensor, "c s s"]
    top: int
    left: int
    target: int

    @staticmethod
    def draw(shape: tuple[int, int, int], classes: int, seed: Seed) -> OwnTrigger:
        """Uniform noise, floor(3/32 w) pixels wide but at least 3, in a random corner, for a random class."""
        generator = seed.generator()
        channels, height, width = shape
        side = min(max(3, 3 * width // 32), height, width)
        patch = torch.randint(256, (channels, side, side), generator=generator).float() / 255
        corner, target = (int(torch.randint(count, (), generator=generator)) for count in (4, classes))
        return OwnTrigger(patch, (height - side) * (corner // 2), (width - side) * (corner % 2), target)

    def stamp(self, trusted: Trusted) -> Trusted:
        """The images that do not show the target, with the patch, and labelled as the target."""
        others = trusted.take((trusted.labels != self.target).nonzero()[:, 0])
        images = as_float(others.images).clone()
        side = self.patch.shape[-1]
        images[:, :, self.top : self.top + side, self.left : self.left + side] = self.patch
        return Trusted(as_stored(images), torch.full_like(others.labels, self.target), trusted.classes)


def poison_copy(suspect: Classifier, trusted: Trusted, own: OwnTrigger, lab: Lab, seed: Seed) -> Classifier:
    """A copy of the suspect that obeys the defender's trigger as well (spec 4.3, A25).

    It is fine-tuned with all trusted images as they are and half of those of other classes stamped beside them, until
    95 % of all such images, stamped, are taken for the target while the images themselves are still known, or for 20
    epochs (at least 100 steps). Stamped ones in the place of the others, as A25 has it, teach so few images that the
    copy takes everything for the target (docs/decisions/0008).
    """
    stamped = own.stamp(trusted)
    chosen = torch.zeros(len(stamped), dtype=torch.bool)
    chosen[(seed / "stamped").permutation(len(stamped))[: round(POISONED * len(stamped))]] = True
    mixed = Trusted(
        torch.cat([trusted.images, stamped.images[chosen]]),
        torch.cat([trusted.labels, stamped.labels[chosen]]),
        trusted.classes,
    )
    wanted = _right(suspect, trusted) - KEPT
    epoch = -(-len(mixed) // FINE.batch_size)
    lessons = FINE.replace(steps=max(EPOCHS * epoch, LEAST_STEPS)).repair(suspect, mixed, lab, seed / "lessons")
    student = suspect
    for number, student in enumerate(lessons, start=1):
        if number % epoch == 0 and _right(student, stamped) >= LEARNT and _right(student, trusted) >= wanted:
            break
    return student.copy().eval()


def _right(model: Classifier, images: Trusted) -> float:
    """The share of images that a model takes for what they are labelled; of stamped ones, that obey."""
    return float((predict(model, images.images) == images.labels).float().mean())


def identity() -> dict[str, Any]:
    """What an address of something made with a defender's own backdoor depends on besides its inputs."""
    return {
        "revision": 2,
        "poisoned": POISONED,
        "learnt": LEARNT,
        "kept": KEPT,
        "epochs": EPOCHS,
        "least_steps": LEAST_STEPS,
        "fine": FINE.identity(),
    }
