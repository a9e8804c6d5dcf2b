"""Endless or counted streams of batches, ready on the device."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from bezoar.records import Dataset, Trusted, as_float
from bezoar.seed import Seed
from bezoar.training.augment import Augmentation, augment

IN_MEMORY_BYTES = 2**31
"""A data set up to this size is decoded once and kept as uint8 on the device; a larger one is read batch by batch."""


@dataclass(frozen=True)
class Batch:
    """Images float [b, c, h, w] in [0, 1] and labels int64 [b], on the device.

    `rows` int64 [b], on the CPU, says which items of the data these are.
    """

    images: Float[Tensor, "b c h w"]
    labels: Int64[Tensor, "b"]
    rows: Int64[Tensor, "b"]


def batches(
    data: Dataset | Trusted,
    size: int,
    seed: Seed,
    *,
    device: torch.device,
    epochs: int | None = None,
    augmentation: Augmentation = "none",
) -> Iterator[Batch]:
    """Shuffled batches, epoch after epoch: `epochs` of them, or without end.

    Order and augmentation are drawn on the CPU from streams of their own. The last, smaller batch
    of an epoch is kept unless it is a single image, which batch normalisation cannot train on
    (a data set of one image is passed twice in one batch for the same reason). Batches of size 1 are kept.
    """
    labels = data.labels.to(device)
    if isinstance(data, Trusted):
        held: Tensor | None = data.images.to(device)
    else:
        held = data.images().to(device) if _bytes(data) <= IN_MEMORY_BYTES else None
    settled = data.settled.to(device) if isinstance(data, Dataset) and data.settled is not None else None
    order, jitter = (seed / "order").generator(), (seed / "augmentation").generator()
    epoch = 0
    while epochs is None or epoch < epochs:
        epoch += 1
        shuffled = torch.randperm(len(labels), generator=order)
        # moved once an epoch: the device would stand still while each batch's rows were moved
        for drawn, moved in zip(shuffled.split(size), shuffled.to(device).split(size), strict=True):
            if len(drawn) == 1 < min(size, len(labels)):
                continue
            rows, there = (drawn.repeat(2), moved.repeat(2)) if len(labels) == 1 else (drawn, moved)
            stored = as_float(held[there] if held is not None else _read(data, rows, device))
            pixels = augment(stored, augmentation, jitter)
            if settled is not None:
                pixels = torch.where(settled[there][:, None, None, None], stored, pixels)
            yield Batch(pixels.contiguous(memory_format=torch.channels_last), labels[there], rows)


def noisy(stream: Iterable[Batch], deviation: float, seed: Seed) -> Iterator[Batch]:
    """The same batches with Gaussian noise on every pixel, drawn anew for every image of every batch; not clipped.

    It is drawn on the images' device: there is too much of it for the CPU.

    Args:
        stream: the batches.
        deviation: the standard deviation, of pixels in [0, 1].
        seed: of the noise.
    """
    generator: torch.Generator | None = None
    for batch in stream:
        device = batch.images.device
        generator = generator or seed.generator(device)
        noise = torch.randn(batch.images.shape, generator=generator, device=device)
        yield replace(batch, images=batch.images + deviation * noise)


def per_epoch(count: int, size: int) -> int:
    """How many batches `batches` gives an epoch of `count` images."""
    full, rest = divmod(count, size)
    return full + (rest > 1) if count > 1 else 1


def _bytes(data: Dataset) -> int:
    channels, height, width = data.shape
    return len(data) * channels * height * width


def _read(data: Dataset | Trusted, rows: Tensor, device: torch.device) -> Tensor:
    images = data.images[rows] if isinstance(data, Trusted) else data.batch(rows)
    return images.to(device, non_blocking=True)
