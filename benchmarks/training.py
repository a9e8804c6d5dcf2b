"""Images per second of bezoar's trainer against a plain loop of torchvision transforms and a `DataLoader`.

Same layers, images, batch size, number of steps, optimiser, schedule and precision. What differs is how a batch
comes about (uint8 tensors, augmented all at once where the network runs, against one PIL image after the other)
and the memory format (channels_last against PyTorch's default).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from PIL import Image
from timing import Report, Row, Timing, interleave, ratio, raw, seconds_of
from torch import Tensor, nn

from bezoar.cli.console import data_folders, find_device
from bezoar.data.cifar10 import Cifar10
from bezoar.data.digits_in_the_wild import DigitsInTheWild
from bezoar.errors import DataError
from bezoar.lab import Lab
from bezoar.models.classifier import StagedClassifier
from bezoar.models.resnet import ResNet18, SmallResNet
from bezoar.records import Dataset
from bezoar.roles import DataSource, Splits
from bezoar.seed import Seed
from bezoar.training.sgd import Sgd
from bezoar.training.steps import Precision

BATCH = 128
WORKERS = (0, 2)

Loader = torch.utils.data.DataLoader[Any]


@dataclass(frozen=True)
class Case:
    """A network and how it is trained."""

    name: str
    architecture: SmallResNet | ResNet18
    precision: Precision = "float32"
    compile: bool = False

    @property
    def trainer(self) -> Sgd:
        """One epoch of the paper's recipe."""
        return Sgd(epochs=1, batch_size=BATCH, augmentation="crop_flip", precision=self.precision, compile=self.compile)


def measure(*, quick: bool) -> Report:
    """One epoch for each network and side, several times in turn."""
    device = find_device("auto")
    repeats, count = (1, 256) if quick else (3, 12800 if device.type == "cuda" else 2560)
    name, data = load(count)
    rows: list[Row] = []
    for case in cases(device):
        sides = {
            "bezoar": partial(bezoar_epoch, case, data, device),
            **{f"{workers} workers": partial(plain_epoch, case, data, workers, device) for workers in WORKERS},
        }
        # the first batches choose convolution algorithms and fill caches
        for side in (bezoar_epoch, partial(plain_epoch, workers=0)):
            side(case=case, data=data.take(torch.arange(2 * BATCH)), device=device)
        times = interleave(sides, repeats)
        rows += [compare(case, workers, times, len(data), device) for workers in WORKERS]
    settings = {
        "data": name,
        "images_per_epoch": len(data),
        "batch": BATCH,
        "workers": list(WORKERS),
        "device": str(device),
        "threads": torch.get_num_threads(),
        "repeats": repeats,
        "recipe": "SGD, momentum .9, weight decay 5e-4, cosine, crop with padding 4 and flip",
    }
    return Report(settings, rows)


def cases(device: torch.device) -> list[Case]:
    """The networks of the presets: small ones on a CPU, ResNet-18 on a GPU."""
    if device.type == "cuda":
        return [
            Case("resnet18, bfloat16", ResNet18(), "bfloat16"),
            Case("resnet18, bfloat16, compiled", ResNet18(), "bfloat16", compile=True),
        ]
    return [Case(f"small_resnet, {stages} stages", SmallResNet(stages=stages)) for stages in (2, 3)]


def load(count: int) -> tuple[str, Dataset]:
    """CIFAR-10 or the embedded images; `count` of them, in memory."""
    name, splits = found(Cifar10(train=count, test=1), DigitsInTheWild(train=count, test=20))
    return name, splits.train


def found(wanted: DataSource, embedded: DataSource) -> tuple[str, Splits]:
    """The data that are wanted if they lie in a folder of BEZOAR_DATA, else embedded ones; and which they are."""
    if os.environ.get("BEZOAR_DATA"):
        try:
            return wanted.kind, wanted.load(data_folders([]))
        except DataError:
            pass
    return embedded.kind, embedded.load(())


def compare(case: Case, workers: int, times: dict[str, Timing], count: int, device: torch.device) -> Row:
    """Images per second of both sides."""
    bezoar, plain = times["bezoar"], times[f"{workers} workers"]
    return Row(
        f"training, {case.name}, DataLoader with {workers} workers",
        speed(bezoar, count),
        speed(plain, count),
        ratio(bezoar, plain),
        "5x" if device.type == "cuda" else "2x",
        {
            **raw(bezoar, plain),
            "network": case.name,
            "workers": workers,
            "precision": case.precision,
            "compile": case.compile,
        },
    )


def speed(timing: Timing, count: int) -> str:
    """Images per second at the median and at the best."""
    return f"{count / timing.median:,.0f} images/s (best {count / timing.best:,.0f})"


def bezoar_epoch(case: Case, data: Dataset, device: torch.device) -> float:
    """Seconds of bezoar's trainer."""
    return seconds_of(lambda: case.trainer.train(case.architecture, data, Lab(device), Seed(0)), device)


class Photographs(torch.utils.data.Dataset[tuple[Tensor, int]]):
    """Images as torchvision's own CIFAR-10 keeps them: one array, and a PIL image made for each item asked for."""

    def __init__(self, data: Dataset, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        from torchvision import transforms  # noqa: PLC0415 - an extra, and only this side needs it

        self.pixels = data.images().permute(0, 2, 3, 1).contiguous().numpy()
        self.labels = data.labels.tolist()
        self.transform: Callable[[Image.Image], Tensor] = transforms.Compose(
            [
                transforms.RandomCrop(data.shape[1], padding=data.shape[1] // 8),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(mean, std),
            ]
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, row: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.pixels[row])), self.labels[row]


class Order(torch.utils.data.Sampler[int]):
    """A random order of the first `count` rows, which may be changed between two epochs."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __iter__(self) -> Iterator[int]:
        return iter(torch.randperm(self.count).tolist())

    def __len__(self) -> int:
        return self.count


def plain_epoch(case: Case, data: Dataset, workers: int, device: torch.device) -> float:
    """Seconds of the loop that everybody writes.

    Not counted: making the array that torchvision would hold, and starting the workers, which a short epoch pays
    dearly for and a long training hardly at all.
    """
    mean, std = (values * (data.shape[0] // len(values)) for values in (case.architecture.mean, case.architecture.std))
    order = Order(min(2 * BATCH, len(data)))
    loader = torch.utils.data.DataLoader(
        Photographs(data, mean, std),
        BATCH,
        sampler=order,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=device.type == "cuda",
    )
    for _ in loader:
        pass  # the workers live from here on
    order.count = len(data)
    return seconds_of(lambda: plain_loop(case, loader, data, device), device)


def plain_loop(case: Case, loader: Loader, data: Dataset, device: torch.device) -> None:
    """Build the network and pass once over the images."""
    recipe = case.trainer
    built = case.architecture.build(data.shape, data.classes, Seed(0))
    assert isinstance(built, StagedClassifier)
    # the same layers but the first: here the transforms normalise
    model = nn.Sequential(built.blocks, built.pool, built.linear).to(device).train()
    optimizer = torch.optim.SGD(model.parameters(), recipe.lr, recipe.momentum, weight_decay=recipe.weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, len(loader))
    for images, labels in loader:
        with torch.autocast(device.type, torch.bfloat16, enabled=case.precision == "bfloat16"):
            logits = model(images.to(device, non_blocking=True))
            loss = nn.functional.cross_entropy(logits, labels.to(device, non_blocking=True))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
