"""The detectability game (Lukas & Kerschbaum, Algorithm 2): whether poisoned models can be told from clean ones."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field, model_validator

from bezoar.component import register
from bezoar.games.game import BackdoorGame
from bezoar.games.referee import Deal, Made, Referee
from bezoar.measure.estimates import auc, proportion
from bezoar.measure.fidelity import fidelity
from bezoar.measure.predictions import clean_accuracy, measure
from bezoar.measure.verdicts import p_value
from bezoar.models.classifier import Classifier
from bezoar.records import Inspection
from bezoar.roles import Detector
from bezoar.seed import Seed


@register("detectability", paper="arXiv:2305.09671, Algorithm 2")
class Detectability(BackdoorGame):
    """Train N poisoned and N clean models, inspect all, and report the ROC AUC over models.

    Model i of either population has the seed `seed` + i for everything: poison, initialisation,
    order, trusted images, detector. A poisoned model and the clean one of the same number are
    twins, and the interval of the ROC AUC does not take them for independent. Every score and every
    clean accuracy is kept, and with every poisoned model how well its trigger works and how faithful
    the reconstructed one is. `clean` says how many clean models there are; unless it is given, as
    many as poisoned ones.
    """

    added: ClassVar[frozenset[str]] = frozenset({"clean"})

    detector: Detector
    models: Annotated[int, Field(ge=1)] = 10
    clean: Annotated[int, Field(ge=1)] | None = None

    @model_validator(mode="after")
    def _every_poisoned_model_has_a_twin(self) -> Detectability:
        if self.clean is not None and self.clean < self.models:
            raise ValueError(f"clean: {self.clean} is too few, every one of {self.models} poisoned models has a twin")
        return self

    def trainings(self) -> set[str]:
        """Both populations."""
        poisoned = (self.models_of(self.seed + number, poisoned=True) for number in range(self.models))
        clean = (self.models_of(self.seed + number, poisoned=False) for number in range(self.clean or self.models))
        return set[str]().union(*poisoned, *clean)

    def play(self, referee: Referee) -> dict[str, Any]:
        """Algorithm 2 for `models` poisoned models, their twins, and further clean ones if `clean` asks for them."""
        referee = referee.publishing(self.recipe)
        poisoned: list[dict[str, Any]] = []
        clean: list[dict[str, Any]] = []
        for number in range(self.clean or self.models):
            seed = Seed(self.seed + number)
            deal = self.deal(referee, seed)
            twin = referee.train(deal.data, None, self.recipe, seed)
            if number < self.models:
                poisoned.append(self._poisoned(referee, deal, twin, seed))
            inspection = referee.inspect(twin, self.detector, deal.trusted, seed).value
            known = clean_accuracy(twin.value, deal.data.value.test)
            clean.append({"clean_accuracy": known.as_json(), **_seen(inspection, seed)})

        def both(name: str) -> tuple[list[Any], list[Any]]:
            return [one[name] for one in poisoned], [one[name] for one in clean]

        named = torch.tensor([one["suspected_class"] == one["target"] for one in poisoned])
        # clean models beyond the twins belong to no pair
        higher = torch.tensor([p["score"] > c["score"] for p, c in zip(poisoned, clean, strict=False)])
        return {
            "auc": auc(*both("score"), both("seed")).as_json(),
            "right_class": proportion(named, unit="models").as_json(),
            "above_twin": proportion(higher, unit="models").as_json(),
            "poisoned": poisoned,
            "clean": clean,
        }

    def _poisoned(self, referee: Referee, deal: Deal, twin: Made[Classifier], seed: Seed) -> dict[str, Any]:
        """One poisoned model: what was planted, what was seen of it, and whether it was the trigger."""
        attacked = referee.attacked(deal.data, self.attack, self.recipe, seed)
        inspection = referee.inspect(attacked.model, self.detector, deal.trusted, seed).value
        target, test = int(attacked.probe.wanted[0]), deal.data.value.test
        # an attack that is after any error has no class of its own, and so no trigger that one could find again
        seen = target >= 0
        faithful = (
            fidelity(inspection, target, attacked.model.value, twin.value, test, attacked.probe) if seen else None
        )
        reading = measure(attacked.model.value, test, attacked.probe)
        return {
            "target": target,
            "clean_accuracy": reading.clean_accuracy.as_json(),
            "attack_success": reading.attack_success.as_json(),
            **_seen(inspection, seed),
            "fidelity": None if faithful is None else faithful.as_json(),
        }


def _seen(inspection: Inspection, seed: Seed) -> dict[str, Any]:
    """What a detector saw of one model, as plain values."""
    return {
        "seed": seed.root,
        "score": inspection.score,
        "suspected_class": inspection.suspect,
        "p_value": p_value(inspection),
        "scores": inspection.scores.tolist(),
        "evidence": {name: values.tolist() for name, values in inspection.evidence.items()},
        "abstained": inspection.abstained,
        "tiers": [asdict(tier) for tier in inspection.tiers],
    }
