"""The other side of the inversion benchmark: TrojanZoo's Neural Cleanse, its loop as it is published.

Runs in an environment of its own (see `peer.py`) and answers on stdout, one JSON line for each JSON line on stdin.
TrojanZoo gets its own model, mark, attack and defence objects; only the data loader is replaced by batches that
lie ready in memory, which is kinder to it than the workers it would start.

Two things are set from outside that its users would not set. Early stopping is switched off by its own parameter,
so that both sides take the same number of steps. The penalty weight is put back to its initial value before each
class: TrojanZoo 2.0.3 carries it over from one class to the next.
"""

# pyright: reportMissingImports=false
from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import trojanvision
from safetensors.torch import load_file, save_file
from torch import Tensor
from trojanvision.attacks import BadNet
from trojanvision.defenses import NeuralCleanse
from trojanvision.environ import env
from trojanvision.marks import Watermark
from trojanvision.models import ImageModel

from bezoar.models.files import load_model


class Rounds:
    """A loader whose epochs are rounds of a few batches, drawn from one shuffled stream."""

    def __init__(self, images: Tensor, labels: Tensor, size: int, length: int) -> None:
        self.images, self.labels, self.size, self.length = images, labels, size, length
        self.taken = 0
        self.stream = self.endless()

    def endless(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Shuffled batches without end; images float [b, c, h, w] in [0, 1]."""
        while True:
            for rows in torch.randperm(len(self.labels)).split(self.size):
                yield self.images[rows], self.labels[rows]

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for _ in range(self.length):
            self.taken += 1
            yield next(self.stream)


def main(job: Path) -> None:
    """Serve inversions of the models in a job folder until stdin closes."""
    answers, sys.stdout = sys.stdout, sys.stderr  # TrojanZoo prints; the protocol must not see it
    settings: dict[str, Any] = json.loads((job / "settings.json").read_text())
    torch.set_num_threads(settings["threads"])
    trusted = load_file(job / "trusted.safetensors")
    images = (trusted["images"].float() / 255).to(env["device"])
    labels = trusted["labels"].to(env["device"])
    answers.write(json.dumps({"trojanzoo": str(trojanvision.__version__), "torch": torch.__version__}) + "\n")
    answers.flush()
    for line in sys.stdin:
        request = json.loads(line)
        answer = invert(job, request["model"], images, labels, settings)
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def invert(job: Path, name: str, images: Tensor, labels: Tensor, settings: dict[str, Any]) -> dict[str, Any]:
    """Optimise a mark for every class, as `get_mark_loss_list` does, and write them to the job folder."""
    loaded = load_model(job / name)
    shape, count = list(loaded.shape), len(loaded.model.classes)
    network = loaded.model.to(memory_format=torch.contiguous_format)
    model = ImageModel(
        name="suspect", model=network, data_shape=shape, num_classes=count, modify_first_layer_channel=False
    )
    mark = Watermark(data_shape=shape, mark_height=shape[1], mark_width=shape[2])
    attack = BadNet(mark=mark, model=model, train_mode="loss")
    defense = NeuralCleanse(
        attack=attack,
        model=model,
        original=True,
        defense_remask_epoch=settings["steps"] // settings["round"],
        defense_remask_lr=0.1,
        cost=settings["cost"],
        nc_cost_multiplier=2.0,
        nc_patience=settings["patience"],
        nc_asr_threshold=settings["threshold"],
        nc_early_stop_threshold=float("inf"),
    )
    torch.manual_seed(0)
    loader = Rounds(images, labels, settings["batch_size"], settings["round"])
    marks: list[Tensor] = []
    started = time.perf_counter()
    for label in range(count):
        attack.target_class, defense.cost = label, defense.init_cost
        marks.append(defense.optimize_mark(label, loader=loader, verbose=False)[0])
    found = torch.stack(marks).cpu()
    seconds = time.perf_counter() - started
    save_file({"marks": found.contiguous()}, job / f"{name}-marks.safetensors")
    return {"seconds": seconds, "steps": loader.taken}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
