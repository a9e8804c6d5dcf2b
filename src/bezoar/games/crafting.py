"""The stage in which a triggerless attack crafts its poisons: made once, whichever victims they are tried on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from bezoar.games.referee import Made, Recipe, Referee
from bezoar.models.classifier import Classifier
from bezoar.records import Dataset, Poison
from bezoar.roles import Splits, TargetedPoisoning, Trainer
from bezoar.seed import Seed
from bezoar.store import Artefact, Stage


@dataclass(frozen=True)
class Crafts:
    """Poisons as they stood at every look, the last of which is the end.

    Attributes:
        steps: how many had been taken.
        losses: float [looks, t], the attack's own.
        poisons: for every look one for each target.
    """

    steps: list[int]
    losses: Float[Tensor, "looks t"]
    poisons: list[list[Poison]]

    @property
    def last(self) -> list[Poison]:
        """The finished poisons."""
        return self.poisons[-1]


def check(
    referee: Referee, attack: TargetedPoisoning, trainer: Trainer, data: Made[Splits], targets: Made[Dataset]
) -> None:
    """Let an attacker refuse what it is about to be given, before anything is trained: its networks are fresh ones.

    Raises:
        SettingError: the data, the targets or the substitutes cannot serve the attack.
    """
    train = data.value.train
    fresh = [referee.untrained(Recipe(one, trainer), train).requires_grad_(False) for one in attack.networks]
    attack.check(train, targets.value, replace(referee.lab, substitutes=tuple(fresh)))


def craft(
    referee: Referee,
    attack: TargetedPoisoning,
    data: Made[Splits],
    targets: Made[Dataset],
    substitutes: Sequence[Made[Classifier]],
    *,
    every: int | None,
    seed: Seed,
) -> Made[Crafts]:
    """Let an attacker craft; the referee looks at every so many steps, and at the end."""
    inputs = {"data": data.address, "targets": targets.address}
    inputs |= {f"substitute {at}": one.address for at, one in enumerate(substitutes)}
    stage = Stage("craft", {"attack": attack.identity(), "every": every}, str(seed / "craft"), inputs)
    lab = replace(referee.lab, substitutes=tuple(one.value for one in substitutes))

    def compute() -> Artefact:
        crafting = attack.craft(data.value.train, targets.value, lab, seed / "craft")
        steps: list[int] = []
        looks: list[tuple[Tensor, list[Poison]]] = []
        taken, live = 0, None
        for taken, live in enumerate(lab.progress.track(crafting, "poisons", attack.length), start=1):
            if every is not None and taken % every == 0:
                steps.append(taken)
                looks.append((live.losses.cpu().clone(), live.poisons()))
        assert live is not None
        if not steps or steps[-1] != taken:
            steps.append(taken)
            looks.append((live.losses.cpu().clone(), live.poisons()))
        return _pack(Crafts(steps, torch.stack([losses for losses, _ in looks]), [few for _, few in looks]))

    return Made(_unpack(referee.store.make(stage, compute)), stage.address)


def _pack(crafts: Crafts) -> Artefact:
    tensors = {
        "losses": crafts.losses,
        "rows": crafts.last[0].rows,
        "labels": crafts.last[0].labels,
        "images": torch.stack([torch.stack([one.images for one in few]) for few in crafts.poisons]),
    }
    if crafts.last[0].memory:
        tensors["exact"] = torch.stack([one.memory["exact"] for one in crafts.last])
    return Artefact(tensors, {"steps": crafts.steps})


def _unpack(artefact: Artefact) -> Crafts:
    tensors, steps = artefact.tensors, artefact.facts["steps"]
    poisons = [[Poison(tensors["rows"], images, tensors["labels"]) for images in few] for few in tensors["images"]]
    if "exact" in tensors:
        poisons[-1] = [
            replace(one, memory={"exact": exact}) for one, exact in zip(poisons[-1], tensors["exact"], strict=True)
        ]
    return Crafts(steps, tensors["losses"], poisons)
