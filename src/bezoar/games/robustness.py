"""The robustness game (Lukas & Kerschbaum, Algorithm 1): how much of an attack survives a repair."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from bezoar.component import register
from bezoar.games.game import Game
from bezoar.games.referee import Deal, Made, Referee
from bezoar.games.repairing import Point, blind, curve, final, looker, oracle
from bezoar.measure.predictions import measure
from bezoar.models.classifier import Classifier
from bezoar.records import Probe
from bezoar.roles import Repairer, Splits
from bezoar.seed import Seed


@register("robustness", paper="arXiv:2305.09671, Algorithm 1")
class Robustness(Game):
    """Collect, train, repair, measure: the whole repair curve and what is left within the accuracy budget.

    The result has three readings of the repair. ``oracle`` is the paper's: the lowest attack success of
    all points within the budget, which takes knowledge that no defender has. ``final`` is the last
    point within the budget. ``blind`` is a second run that trains on 80 % of the trusted images and
    stops on the rest. `success` is Succ = clean accuracy - attack success of each reading.
    """

    repairer: Repairer
    budget: Annotated[float, Field(ge=0, le=1)] = 0.02
    every: Annotated[int, Field(ge=1)] = 50

    def play(self, referee: Referee) -> dict[str, Any]:
        """Algorithm 1 with a clean twin, which gives the natural success of the trigger."""
        referee = referee.publishing(self.recipe)
        seed = Seed(self.seed)
        deal = self.deal(referee, seed)
        data = deal.data
        poison = referee.collect(data, self.attack, seed)
        probe = referee.probe(data, self.attack, poison, seed)
        suspect = referee.train(data, poison, self.recipe, seed)
        twin = referee.train(data, None, self.recipe, seed)
        repaired = self._repair(referee, deal, suspect, probe, poison.address, seed)
        return {
            "suspect": _reading(suspect.value, data.value, probe),
            "twin": _reading(twin.value, data.value, probe),
            **repaired,
        }

    def _repair(
        self,
        referee: Referee,
        deal: Deal,
        suspect: Made[Classifier],
        probe: Probe,
        poison: str,
        seed: Seed,
    ) -> dict[str, Any]:
        """Both runs of the repair, as one stage."""
        stream = seed / "repair"
        trusted, test = deal.trusted.value, deal.data.value.test
        repairer, every, lab = self.repairer, self.every, referee.lab

        def compute() -> dict[str, Any]:
            look = looker(suspect.value, test, probe)
            points = curve(repairer, suspect.value, trusted, every, lab, stream / "all", look)
            kept, step = suspect.value, 0
            for trial in blind(repairer, suspect.value, trusted, every, self.budget, lab, stream):
                if trial.accepted:
                    kept, step = trial.model.copy(), trial.step
            return {"curve": [point.as_json() for point in points], "blind": look(step, kept).as_json()}

        plain: dict[str, Any] = {
            "every": every,
            "budget": self.budget,
            "probe": self.attack.identity(),
        }
        inputs = {"trusted": deal.trusted.address, "model": suspect.address, "poison": poison}
        made = referee.measured("repair", {"repairer": repairer}, plain, inputs, stream, compute)
        points = [Point.from_json(point) for point in made["curve"]]
        readings = {
            "oracle": oracle(points, self.budget),
            "final": final(points, self.budget),
            "blind": Point.from_json(made["blind"]),
        }
        return {
            "repaired": {name: _with_success(point) for name, point in readings.items()},
            "curve": made["curve"],
        }


def _with_success(point: Point) -> dict[str, Any]:
    """A reading with Succ = clean accuracy - attack success, a plain difference of two estimates."""
    return {**point.as_json(), "success": point.clean_accuracy.value - point.attack_success.value}


def _reading(model: Classifier, data: Splits, probe: Probe) -> dict[str, Any]:
    reading = measure(model, data.test, probe)
    return {
        "clean_accuracy": reading.clean_accuracy.as_json(),
        "attack_success": reading.attack_success.as_json(),
    }
