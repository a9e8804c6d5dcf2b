"""Certificates: what bounds of a batch cost beside the network's plain forward pass on the same batch.

CROWN-IBP bounds nine margins of each image, so nine backward passes and twice three forward passes are the least of it.
"""

from __future__ import annotations

from functools import partial

import torch
from timing import Report, Row, Timing, interleave, raw, seconds_of
from torch import Tensor

from bezoar.bounds.margins import Method, margins
from bezoar.cli.console import find_device
from bezoar.models.classifier import Classifier, frozen
from bezoar.models.convolutional import Convolutional
from bezoar.seed import Seed

SHAPE, CLASSES, EPSILON = (3, 32, 32), tuple("0123456789"), 0.01
METHODS: tuple[Method, ...] = ("ibp", "crown_ibp")


def measure(*, quick: bool) -> Report:
    """A plain pass, intervals and CROWN-IBP in turn, on random images and a fresh network."""
    device = find_device("auto")
    batch, passes, repeats = (16, 1, 1) if quick else (256, 10, 9)
    model = frozen(Convolutional().build(SHAPE, CLASSES, Seed(0)).to(device))
    images = torch.rand(batch, *SHAPE, generator=Seed(1).generator()).to(device)
    labels = (torch.arange(batch) % len(CLASSES)).to(device)
    sides = {"plain": partial(seconds, partial(plain, model, images), passes, device)}
    for method in METHODS:
        work = partial(bound, model, images, labels, method)
        sides[method] = partial(seconds, work, 1, device)
    for side in sides.values():
        side()  # the first passes choose convolution algorithms and fill caches
    times = interleave(sides, repeats)
    settings = {
        "network": "convolutional",
        "images": "x".join(str(side) for side in SHAPE),
        "batch": batch,
        "classes": len(CLASSES),
        "device": str(device),
        "threads": torch.get_num_threads(),
        "repeats": repeats,
    }
    return Report(settings, [compare(method, times[method], times["plain"], batch) for method in METHODS])


def seconds(work: partial[object], count: int, device: torch.device) -> float:
    """Of one call, on average over so many."""
    return seconds_of(lambda: [work() for _ in range(count)], device) / count


@torch.no_grad()
def plain(model: Classifier, images: Tensor) -> Tensor:
    """Logits."""
    return model(images)


@torch.no_grad()
def bound(model: Classifier, images: Tensor, labels: Tensor, method: Method) -> Tensor:
    """Lower bounds of all margins."""
    return margins(model, images, labels, EPSILON, method=method)


def compare(method: Method, own: Timing, forward: Timing, batch: int) -> Row:
    """Milliseconds of both, and how many plain passes the bounds take."""
    return Row(
        f"{method} margins of {batch} images, convolutional",
        f"{1e3 * own.median:.0f} ms (best {1e3 * own.best:.0f})",
        f"{1e3 * forward.median:.1f} ms (best {1e3 * forward.best:.1f}), plain pass",
        f"{own.median / forward.median:.1f} passes (best {own.best / forward.best:.1f})",
        "at most 25" if method == "crown_ibp" else "",
        {**raw(own, forward), "method": method},
    )
