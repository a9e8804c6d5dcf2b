"""What attacks and triggers do to the same few images."""

from __future__ import annotations

import torch
from matplotlib.figure import Figure

from bezoar.attacks.adding import Adding
from bezoar.attacks.stamping import Stamping, key_of, stamped
from bezoar.games.referee import Made, Recipe, Referee
from bezoar.records import Dataset
from bezoar.report.tiles import picture_lines
from bezoar.roles import Attack, CodePoisoning, DataPoisoning, Splits, Trigger
from bezoar.seed import Seed

SHOWN = 6
SEED = Seed(0)


def attack_figure(attack: Attack, data: Made[Splits], referee: Referee, recipe: Recipe) -> Figure:
    """Six test images, as they are and as they are attacked; where poison looks different, as poison too.

    Points that are added are made from training images with marks of their own, and are not shown.

    Args:
        attack: any data or code poisoning.
        data: the attack poisons its training half first, because some triggers are drawn then.
        referee: has published `recipe`, for attacks with a surrogate.
        recipe: the victim's.
    """
    few = _few(data.value.test, getattr(attack, "target", 0))
    if isinstance(attack, CodePoisoning):
        memory = referee.supply(data, attack, recipe, SEED)[1]
    else:
        assert isinstance(attack, DataPoisoning)
        # what a stamp remembers does not depend on how many images carry it, and some data hold too few for m
        drawn = attack.replace(poisons=1) if isinstance(attack, Stamping) else attack
        memory = referee.collect(data, drawn, SEED).value.memory
    probe = referee.probe(Made(Splits(data.value.train, few), data.address), attack, memory, SEED)
    lines = {"clean": few.images()}
    if isinstance(attack, Stamping):
        lab, key = referee.attackers_lab(data, attack, SEED).value, key_of(memory["key"])
        poisoned = stamped(few, probe.rows, lambda images, rows: attack.stamp_training(images, rows, lab, key))
        if not poisoned.equal(probe.images):
            lines["poisoned"] = poisoned
    apart = "poisoned" in lines or isinstance(attack, Adding)
    lines["attacked" if apart else "poisoned,\nattacked"] = probe.images
    return picture_lines(lines, _titles(few))


def trigger_figure(trigger: Trigger, data: Made[Splits], referee: Referee) -> Figure:
    """Six test images without and with a trigger.

    Args:
        trigger: any; one with a surrogate has it trained on the clean training half.
        data: where the images are from.
        referee: has published a recipe, for triggers with a surrogate.
    """
    few = _few(data.value.test, 0)
    lab = referee.attackers_lab(data, trigger, SEED).value
    marked = stamped(few, torch.arange(len(few)), lambda images, rows: trigger.stamp(images, rows, lab, SEED))
    return picture_lines({"clean": few.images(), "stamped": marked}, _titles(few))


def _few(test: Dataset, target: int) -> Dataset:
    """The first image of each of six classes other than the target."""
    others = [label for label in range(len(test.classes)) if label != target][:SHOWN]
    rows = [int((test.labels == label).nonzero()[0, 0]) for label in others if bool((test.labels == label).any())]
    return test.take(torch.tensor(rows))


def _titles(few: Dataset) -> list[str]:
    return [few.classes[int(label)] for label in few.labels]
