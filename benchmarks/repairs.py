"""What a step of a repair costs beside a step of plain fine-tuning, in the very same generator of steps.

The repairers differ in their objective alone: same network, trusted images, batch, augmentation, optimiser.
"""

from __future__ import annotations

from collections import deque
from functools import partial

import torch
from timing import Report, Row, Timing, interleave, raw, seconds_of

from bezoar.cli.console import find_device
from bezoar.data.digits_in_the_wild import DigitsInTheWild
from bezoar.defenses.repairers.attention_distillation import AttentionDistillation
from bezoar.defenses.repairers.pivotal_tuning import PivotalTuning
from bezoar.defenses.repairers.weight_decay import WeightDecay
from bezoar.lab import Lab
from bezoar.models.classifier import Classifier
from bezoar.models.resnet import ResNet18, SmallResNet
from bezoar.records import Trusted
from bezoar.roles import Repairer
from bezoar.seed import Seed

BATCH, TRUSTED = 128, 500


def measure(*, quick: bool) -> Report:
    """The same number of steps of every repairer in turn, on each network."""
    device = find_device("auto")
    steps, repeats = (2, 1) if quick else (20, 5)
    data = DigitsInTheWild(train=7000, test=20).load(()).train.sample(TRUSTED, Seed(0))
    trusted = Trusted.of(data)
    networks = {"small_resnet, 3 stages": SmallResNet(stages=3)}
    if device.type == "cuda":
        networks["resnet18"] = ResNet18()
    rows: list[Row] = []
    for network, architecture in networks.items():
        suspect = architecture.build(data.shape, data.classes, Seed(0)).to(device).eval()
        suspect = suspect.to(memory_format=torch.channels_last)
        sides = {
            name: partial(seconds, repairer, suspect, trusted, device) for name, repairer in repairers(steps).items()
        }
        for side in sides.values():
            side()  # the first steps choose convolution algorithms and fill caches
        times = interleave(sides, repeats)
        rows += [compare(network, name, times, steps) for name in ("pivotal_tuning", "attention_distillation")]
    settings = {
        "data": "digits_in_the_wild",
        "trusted": TRUSTED,
        "batch": BATCH,
        "augmentation": "crop_flip",
        "steps": steps,
        "device": str(device),
        "threads": torch.get_num_threads(),
        "repeats": repeats,
    }
    return Report(settings, rows)


def repairers(steps: int) -> dict[str, Repairer]:
    """Plain fine-tuning first; NAD's teacher is done before the first student, so it does not count."""
    return {
        "plain": WeightDecay(steps=steps, batch_size=BATCH),
        "pivotal_tuning": PivotalTuning(steps=steps, batch_size=BATCH),
        "attention_distillation": AttentionDistillation(steps=steps, teacher_steps=1, batch_size=BATCH),
    }


def seconds(repairer: Repairer, suspect: Classifier, trusted: Trusted, device: torch.device) -> float:
    """From the first student to the last, so that copies and teachers do not count."""
    students = repairer.repair(suspect, trusted, Lab(device), Seed(0))
    next(students)
    return seconds_of(lambda: deque(students, maxlen=0), device)


def compare(network: str, name: str, times: dict[str, Timing], steps: int) -> Row:
    """Milliseconds a step of both, and how many plain steps one of the repair's takes."""
    own, plain = times[name], times["plain"]
    return Row(
        f"a step of {name}, {network}",
        per_step(own, steps),
        f"{per_step(plain, steps)}, plain",
        f"{own.median / plain.median:.2f} plain steps (best {own.best / plain.best:.2f})",
        "at most 1.6" if name == "pivotal_tuning" else "",
        {**raw(own, plain), "network": network, "repairer": name},
    )


def per_step(timing: Timing, steps: int) -> str:
    """Milliseconds at the median and at the best."""
    taken = max(1, steps - 1)
    return f"{1000 * timing.median / taken:.0f} ms (best {1000 * timing.best / taken:.0f})"
