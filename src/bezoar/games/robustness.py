"""The robustness game (Lukas & Kerschbaum, Algorithm 1): how much of an attack survives a repair."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import Field, model_validator

from bezoar.component import register
from bezoar.games.game import SanitizedGame
from bezoar.games.referee import Attacked, Deal, Referee
from bezoar.games.repairing import Point, blind_step, cross_validated, curve, final, looker, oracle
from bezoar.games.sanitizing import sanitized
from bezoar.measure.predictions import measure
from bezoar.models.classifier import Classifier
from bezoar.records import Probe
from bezoar.roles import DataPoisoning, Repairer, Splits
from bezoar.seed import Seed


@register("robustness", paper="arXiv:2305.09671, Algorithm 1")
class Robustness(SanitizedGame):
    """Collect, sanitize, train, repair, measure: the whole repair curve and what is left within the accuracy budget.

    The result has three readings of the repair, all points of the one curve. ``oracle`` is the paper's:
    the lowest attack success of all points within the budget, which takes knowledge that no defender
    has. ``final`` is the last point within the budget. ``blind`` stops where a cross-validation on
    the trusted images alone says so; it takes a further repair for each of ``folds``. `success` is
    Succ = clean accuracy - attack success of each reading. Without a repairer the game ends before the
    repair: what the attack does to an undefended model, and to its clean twin.

    A sanitizer ranks the rows by the features of that undefended model; the share ``removed`` of them that is the
    most suspicious goes, and a model trained on the rest is what is repaired. `sanitized` says how well the ranking
    told poisoned rows from clean ones, and what is left of the attack before a repair.
    """

    added: ClassVar[frozenset[str]] = frozenset({"sanitizer", "removed"})

    repairer: Repairer | None = None
    budget: Annotated[float, Field(ge=0, le=1)] = 0.02
    every: Annotated[int, Field(ge=1)] = 50
    folds: Annotated[int, Field(ge=2)] = 5

    @model_validator(mode="after")
    def _enough(self) -> Robustness:
        if self.folds > self.trusted:
            raise ValueError(f"folds: {self.folds} folds need as many trusted images, and there are {self.trusted}")
        return self

    def play(self, referee: Referee) -> dict[str, Any]:
        """Algorithm 1 with a clean twin, which gives the natural success of the trigger."""
        referee = referee.publishing(self.recipe)
        seed = Seed(self.seed)
        deal = self.deal(referee, seed)
        data = deal.data
        attacked = referee.attacked(data, self.attack, self.recipe, seed)
        twin = referee.train(data, None, self.recipe, seed)
        before = {
            "suspect": _reading(attacked.model.value, data.value, attacked.probe),
            "twin": _reading(twin.value, data.value, attacked.probe),
        }
        if self.sanitizer is not None:
            assert isinstance(self.attack, DataPoisoning)
            done = sanitized(
                referee,
                data,
                self.attack,
                attacked,
                self.recipe,
                seed,
                sanitizer=self.sanitizer,
                removed=self.removed,
            )
            attacked = done.attacked
            before["sanitized"] = done.facts | _reading(attacked.model.value, data.value, attacked.probe)
        return before if self.repairer is None else before | self._repair(self.repairer, referee, deal, attacked, seed)

    def _repair(
        self, repairer: Repairer, referee: Referee, deal: Deal, attacked: Attacked, seed: Seed
    ) -> dict[str, Any]:
        """The repair on all trusted images and one for each fold, as one stage."""
        stream, suspect = seed / "repair", attacked.model
        trusted, test = deal.trusted.value, deal.data.value.test
        every, lab = self.every, referee.lab

        def compute() -> dict[str, Any]:
            look = looker(suspect.value, test, attacked.probe)
            points = curve(repairer, suspect.value, trusted, every, lab, stream / "all", look)
            looks = cross_validated(
                repairer, suspect.value, trusted, every, lab, stream, budget=self.budget, folds=self.folds
            )
            return {
                "curve": [point.as_json() for point in points],
                "looks": [look.as_json() for look in looks],
                "blind_step": blind_step(looks),
            }

        plain: dict[str, Any] = {
            "every": every,
            "budget": self.budget,
            "folds": self.folds,
            "probe": self.attack.identity(),
        }
        inputs = {"trusted": deal.trusted.address, "model": suspect.address, "poison": attacked.address}
        made = referee.measured("repair", {"repairer": repairer}, plain, inputs, stream, compute)
        points = [Point.from_json(point) for point in made["curve"]]
        readings = {
            "oracle": oracle(points, self.budget),
            "final": final(points, self.budget),
            "blind": next(point for point in points if point.step == made["blind_step"]),
        }
        return {
            "repaired": {name: _with_success(point) for name, point in readings.items()},
            "curve": made["curve"],
            "looks": made["looks"],
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
