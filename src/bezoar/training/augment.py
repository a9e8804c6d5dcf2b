"""Batched augmentation on the device; what is drawn comes from a CPU generator."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

Augmentation = Literal["none", "flip", "crop", "crop_flip"]
"""``crop``: zero-pad by an eighth of the side and cut out the old size; ``flip``: mirror every other image."""


def augment(
    images: Float[Tensor, "n c h w"], augmentation: Augmentation, generator: torch.Generator
) -> Float[Tensor, "n c h w"]:
    """Each image cropped and mirrored by draws of its own (CIFAR's usual pad 4 and flip at 32x32)."""
    if augmentation in ("crop", "crop_flip"):
        images = _crop(images, generator)
    if augmentation in ("flip", "crop_flip"):
        mirrored = _onto(images.device, torch.rand(len(images), generator=generator).lt(0.5))
        images = torch.where(mirrored[:, None, None, None], images.flip(3), images)
    return images


def _crop(images: Tensor, generator: torch.Generator) -> Tensor:
    count, _, height, width = images.shape
    pad_y, pad_x = height // 8, width // 8
    top = _onto(images.device, torch.randint(2 * pad_y + 1, (count,), generator=generator))
    left = _onto(images.device, torch.randint(2 * pad_x + 1, (count,), generator=generator))
    padded = functional.pad(images, (pad_x, pad_x, pad_y, pad_y))
    # windows[n, :, y, x] is the crop of image n whose corner is (y, x): a view, so one gather copies
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)
    return windows[torch.arange(count, device=images.device), :, top, left].contiguous()


def _onto(device: torch.device, drawn: Tensor) -> Tensor:
    """Draws where they are used; a GPU gets them without the CPU waiting for the steps that it still has to do."""
    return drawn.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else drawn.to(device)
