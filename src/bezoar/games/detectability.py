"""The detectability game (Lukas & Kerschbaum, Algorithm 2): whether poisoned models can be told from clean ones."""

from __future__ import annotations

from typing import Annotated, Any

import torch
from pydantic import Field

from bezoar.component import register
from bezoar.games.game import Game
from bezoar.games.referee import Made, Referee
from bezoar.measure.estimates import auc, proportion
from bezoar.measure.outliers import outlier_p_value
from bezoar.models.classifier import Classifier
from bezoar.records import Trusted
from bezoar.roles import Detector
from bezoar.seed import Seed


@register("detectability", paper="arXiv:2305.09671, Algorithm 2")
class Detectability(Game):
    """Train N poisoned and N clean models, inspect all, and report the ROC AUC over models.

    Model i of either population has the seed `seed` + i for everything: poison, initialisation,
    order, trusted images, detector. A poisoned model and the clean one of the same number are
    twins. Every score is kept.
    """

    detector: Detector
    models: Annotated[int, Field(ge=1)] = 10

    def play(self, referee: Referee) -> dict[str, Any]:
        """Algorithm 2 for `models` pairs."""
        referee = referee.publishing(self.recipe)
        poisoned: list[dict[str, Any]] = []
        clean: list[dict[str, Any]] = []
        for number in range(self.models):
            seed = Seed(self.seed + number)
            deal = self.deal(referee, seed)
            data = deal.data
            attacked = referee.attacked(data, self.attack, self.recipe, seed)
            twin = referee.train(data, None, self.recipe, seed)
            target = int(attacked.probe.wanted[0])
            poisoned.append({"target": target, **self._inspect(referee, deal.trusted, attacked.model, seed)})
            clean.append(self._inspect(referee, deal.trusted, twin, seed))
        named = torch.tensor([one["suspected_class"] == one["target"] for one in poisoned])
        higher = torch.tensor([p["score"] > c["score"] for p, c in zip(poisoned, clean, strict=True)])
        return {
            "auc": auc([one["score"] for one in poisoned], [one["score"] for one in clean]).as_json(),
            "right_class": proportion(named, unit="models").as_json(),
            "above_twin": proportion(higher, unit="models").as_json(),
            "poisoned": poisoned,
            "clean": clean,
        }

    def _inspect(self, referee: Referee, trusted: Made[Trusted], model: Made[Classifier], seed: Seed) -> dict[str, Any]:
        inspection = referee.inspect(model, self.detector, trusted, seed).value
        return {
            "seed": seed.root,
            "score": inspection.score,
            "suspected_class": inspection.suspect,
            "p_value": outlier_p_value(inspection.scores),
            "scores": inspection.scores.tolist(),
            "evidence": {name: values.tolist() for name, values in inspection.evidence.items()},
            "abstained": inspection.abstained,
        }
