"""The sanitize stage: a sanitizer ranks the rows, the most suspicious go, and the victim trains on the rest."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from bezoar.component import digest
from bezoar.errors import SettingError
from bezoar.games.referee import Attacked, Made, Recipe, Referee
from bezoar.games.victims import Scene
from bezoar.lab import Lab
from bezoar.measure.estimates import auc, mean, proportion
from bezoar.models.classifier import Classifier
from bezoar.records import Dataset, Poison
from bezoar.roles import DataPoisoning, Sanitizer, Splits
from bezoar.seed import Seed
from bezoar.store import Artefact, Stage


@dataclass(frozen=True)
class Sanitized:
    """What a sanitizer has led to.

    Attributes:
        attacked: as before, but with the model that was trained on the rows that were kept.
        facts: how well the ranking told poisoned rows from clean ones, as plain values.
    """

    attacked: Attacked
    facts: dict[str, Any]


def sanitized(
    referee: Referee,
    data: Made[Splits],
    attack: DataPoisoning,
    undefended: Attacked,
    recipe: Recipe,
    seed: Seed,
    *,
    sanitizer: Sanitizer,
    removed: float,
) -> Sanitized:
    """Rank the rows that the victim collected by the victim's own features, remove the worst, and train again.

    Args:
        referee: makes the stages.
        data: the clean data.
        attack: what poisons them.
        undefended: what that leads to; its model was trained on all of the poisoned data.
        recipe: the victim's.
        seed: of the game.
        sanitizer: who ranks; it sees the data and the victim, and nothing of the poison.
        removed: share of the rows that go.

    Raises:
        SettingError: nothing would be left to train on, or nothing would be removed.
    """
    poison = referee.collect(data, attack, seed)
    collected = poison.value.apply(data.value.train)
    inputs = {"data": data.address, "poison": poison.address}
    scores = suspicions(referee, collected, inputs, undefended.model, sanitizer, seed)
    gone = most_suspicious(scores.value, removed, seed / "ties")
    rest = torch.ones(len(collected), dtype=torch.bool)
    rest[gone] = False
    kept = Made(rest.nonzero()[:, 0], digest({"scores": scores.address, "removed": removed}))
    model = referee.train(data, poison, recipe, seed, kept=kept)
    return Sanitized(replace(undefended, model=model), told(scores.value, ~rest, poison.value, collected))


def suspicions(
    referee: Referee,
    data: Dataset,
    inputs: dict[str, str],
    victim: Made[Classifier],
    sanitizer: Sanitizer,
    seed: Seed,
) -> Made[Tensor]:
    """A sanitizer's scores as a stage, float [n]; `inputs` says where the data are from, role -> address."""
    stream = seed / "sanitize"
    stage = Stage("sanitize", {"sanitizer": sanitizer.identity()}, str(stream), {**inputs, "model": victim.address})

    def compute() -> Artefact:
        return Artefact({"scores": sanitizer.suspicion(victim.value, data, referee.lab, stream)})

    return Made(referee.store.make(stage, compute).tensors["scores"], stage.address)


def most_suspicious(scores: Float[Tensor, "n"], share: float, seed: Seed) -> Int64[Tensor, "k"]:
    """The first round(share n) rows of `ranking`.

    Raises:
        SettingError: these are none, or all.
    """
    return ranking(scores, seed)[: how_many(share, len(scores))]


def how_many(share: float, rows: int, *, name: str = "removed") -> int:
    """round(share n) of n rows; `name` is what the user calls the share.

    Raises:
        SettingError: these are none, or all.
    """
    count = round(share * rows)
    if not 0 < count < rows:
        raise SettingError(f"{name}: {share:g} of {rows} rows is {count} rows; some must go and some must stay")
    return count


def ranking(scores: Float[Tensor, "n"], seed: Seed) -> Int64[Tensor, "n"]:
    """All rows, the highest score first; ties are broken by the seed, not by place."""
    shuffled = seed.permutation(len(scores))
    return shuffled[scores[shuffled].argsort(descending=True, stable=True)]


def told(scores: Float[Tensor, "n"], gone: Bool[Tensor, "n"], poison: Poison, collected: Dataset) -> dict[str, Any]:
    """How well a ranking tells the poisoned rows of the collected data: plain values, None where there is no poison.

    Repeated poisons count as often as they occur, and are not independent: intervals take that into account.
    """
    copies = poison.boost if poison.added else poison.boost - 1
    clean = len(scores) - copies * len(poison.rows)
    poisoned = torch.zeros(len(scores), dtype=torch.bool)
    poisoned[poison.places(clean)] = True
    groups = collected.groups
    if groups is None:
        groups = torch.cat([torch.arange(clean), poison.rows.repeat(copies)])
    pair = groups[poisoned].tolist(), groups[~poisoned].tolist()
    area = auc(scores[poisoned].tolist(), scores[~poisoned].tolist(), pair, unit="rows")
    removed = {
        name: proportion(gone[chosen], groups[chosen], unit="rows").as_json() if bool(chosen.any()) else None
        for name, chosen in (("poisoned_removed", poisoned), ("clean_removed", ~poisoned))
    }
    known = bool(poisoned.any()) and not bool(poisoned.all())
    return {"rows": len(scores), "removed": int(gone.sum()), "auc": area.as_json() if known else None, **removed}


class Ranked:
    """Ranks the rows of every victim of triggerless poisons by that victim's own features, as it is shown them.

    Args:
        scene: what the victims are fine-tuned on.
        sanitizer: who ranks.
        share: of the rows that go.
        lab: where.
        seed: of the ranking.

    Raises:
        SettingError: no row would go, or all.
    """

    def __init__(self, scene: Scene, sanitizer: Sanitizer, share: float, lab: Lab, seed: Seed) -> None:
        self._scene, self._sanitizer, self._share, self._lab, self._seed = scene, sanitizer, share, lab, seed
        self.kept = torch.ones(len(scene.poisons) + 1, len(scene.clean), dtype=torch.bool)
        self._told: list[dict[str, Any]] = []

    def __call__(self, number: int, victim: Classifier) -> None:
        """Rank the rows of one victim; the one without poisons keeps all of its own."""
        if number == len(self._scene.poisons):
            return
        poison, seed = self._scene.poisons[number], self._seed / "sanitize" / number
        collected = poison.apply(self._scene.clean)
        scores = self._sanitizer.suspicion(victim, collected, self._lab, seed)
        self.kept[number, most_suspicious(scores, self._share, seed / "ties")] = False
        self._told.append(told(scores, ~self.kept[number], poison, collected))

    def facts(self) -> dict[str, Any]:
        """Means over targets of the ROC AUC of rows, and of the shares of poisoned and of clean rows that go."""
        means: dict[str, Any] = {}
        for name in ("auc", "poisoned_removed", "clean_removed"):
            found = mean([one[name]["value"] for one in self._told], "targets")  # Student's interval knows no edges
            means[name] = replace(found, low=max(0.0, found.low), high=min(1.0, found.high)).as_json()
        return {"rows": self._told[0]["rows"], "removed": self._told[0]["removed"], **means}
