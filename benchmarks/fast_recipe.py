"""What a preset's recipe takes and reaches, against the same network trained four times as long on the same data.

The recipe is that of experiments/pick-your-poison/victims.yaml: its preset ``gpu`` where there is a GPU, else ``cpu``.
The two share the seed, so they begin with the same weights; the difference of their accuracies is that of two models,
and its interval that of the test images.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from timing import Report, Row, Timing, ratio, raw, seconds_of
from torch import Tensor
from training import found

from bezoar.cli.console import find_device
from bezoar.component import build
from bezoar.data.digits_in_the_wild import DigitsInTheWild
from bezoar.lab import Lab
from bezoar.measure.estimates import paired_loss, proportion
from bezoar.measure.predictions import predict
from bezoar.models.classifier import Classifier
from bezoar.plans import read_settings
from bezoar.roles import Architecture, DataSource, Splits
from bezoar.seed import Seed
from bezoar.training.sgd import Sgd

VICTIMS = Path(__file__).parent.parent / "experiments" / "pick-your-poison" / "victims.yaml"
TIMES = 4
AIM = "at most .01 lost"


@dataclass(frozen=True)
class Trained:
    """What a training came to: its seconds, and which test images its model classifies correctly."""

    timing: Timing
    right: Tensor

    def __str__(self) -> str:
        return f"{self.timing}, accuracy {proportion(self.right)}"


def measure(*, quick: bool) -> Report:
    """Both trainings, one after the other, after two steps that choose algorithms and compile."""
    lab = Lab(find_device("auto"))
    preset = "gpu" if lab.device.type == "cuda" else "cpu"
    settings = read_settings(VICTIMS, preset).settings
    architecture, recipe = build(Architecture, settings["architecture"]), build(Sgd, settings["trainer"])
    name, splits = found(build(DataSource, settings["data"]), DigitsInTheWild())
    if quick:
        splits, recipe = Splits(splits.train.take(torch.arange(256)), splits.test), recipe.replace(epochs=1)
    recipe.replace(epochs=1).train(architecture, splits.train.take(torch.arange(2 * recipe.batch_size)), lab, Seed(1))
    short, long = (
        train(recipe.replace(epochs=epochs), architecture, splits, lab)
        for epochs in (recipe.epochs, TIMES * recipe.epochs)
    )
    lost = paired_loss(long.right, short.right)
    return Report(
        {
            "data": name,
            "preset": preset,
            "device": str(lab.device),
            "images": len(splits.train),
            "recipe": recipe.identity(),
        },
        [
            Row(
                f"{recipe.epochs} epochs against {TIMES * recipe.epochs}",
                str(short),
                str(long),
                f"{ratio(short.timing, long.timing)}, accuracy lost {lost}",
                AIM,
                {**raw(short.timing, long.timing), "lost": lost.as_json()},
            )
        ],
    )


def train(recipe: Sgd, architecture: Architecture, splits: Splits, lab: Lab) -> Trained:
    """Train once, and look at every test image."""
    models: list[Classifier] = []
    seconds = seconds_of(lambda: models.append(recipe.train(architecture, splits.train, lab, Seed(0))), lab.device)
    return Trained(Timing((seconds,)), predict(models[0], splits.test) == splits.test.labels)
