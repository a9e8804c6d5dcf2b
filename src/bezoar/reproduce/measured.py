"""What was measured, as the paper's tables and figures ask for it: read from the rows of both games."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from bezoar.measure.estimates import Groups, auc, auc_difference, mean
from bezoar.records import Estimate
from bezoar.report.doses import share
from bezoar.report.groups import MISSHAPEN, Robust, Row, kind_of, unreadable


def dose_of(attack: Mapping[str, Any]) -> float:
    """How strong an attack is: poisoned images m, or the share of the parameters that it moves."""
    return float(attack["poisons"] if "poisons" in attack else attack["fraction"])


@dataclass(frozen=True)
class Detected:
    """One attack at one m as one detector saw its models.

    Attributes:
        attack, dose, detector: whose models, and who looked.
        poisoned, clean: scores of the models.
        groups: their seeds; twins share one.
        success: of the attack, one number a model.
        accuracy: clean accuracy of the poisoned models, one number a model.
        clean_accuracy: of the clean ones.
    """

    attack: str
    dose: float
    detector: str
    poisoned: list[float]
    clean: list[float]
    groups: Groups
    success: list[float]
    accuracy: list[float]
    clean_accuracy: list[float]

    @property
    def area(self) -> Estimate:
        """ROC AUC over models; twins are not taken for independent."""
        return auc(self.poisoned, self.clean, self.groups)

    def above(self, other: Detected) -> Estimate:
        """How much larger this ROC AUC is than that of another detector or another m, paired by seeds."""
        return auc_difference((self.poisoned, self.clean), (other.poisoned, other.clean), self.groups)


def detected(rows: Iterable[Row]) -> list[Detected]:
    """All rows of the detectability game, weakest attack first.

    Raises:
        StoreError: a row lacks something, e.g. because another version of bezoar wrote it.
    """
    found = [_detected(row) for row in rows if "result" in row and "detector" in row["game"]]
    return sorted(found, key=lambda one: (one.attack, one.dose, one.detector))


def _detected(row: Row) -> Detected:
    game, result = row["game"], row["result"]
    try:
        poisoned, clean = result["poisoned"], result["clean"]
        return Detected(
            kind_of(game["attack"]),
            dose_of(game["attack"]),
            kind_of(game["detector"]),
            [float(one["score"]) for one in poisoned],
            [float(one["score"]) for one in clean],
            ([one["seed"] for one in poisoned], [one["seed"] for one in clean]),
            [float(one["attack_success"]["value"]) for one in poisoned],
            [float(one["clean_accuracy"]["value"]) for one in poisoned],
            [float(one["clean_accuracy"]["value"]) for one in clean],
        )
    except MISSHAPEN as error:
        raise unreadable(row, error) from None


@dataclass(frozen=True)
class Repaired:
    """All seeds of one attack at one m under one repairer with so many trusted images."""

    attack: str
    dose: float
    repairer: str
    trusted: int
    read: list[Robust]

    @property
    def left(self) -> Estimate:
        """What is left in the paper's reading, the oracle's: the mean of the seeds, or the one seed's own interval."""
        points = [one.readings["oracle"].attack_success for one in self.read]
        return points[0] if len(points) == 1 else share([point.value for point in points])

    def left_more(self, other: Repaired) -> Estimate:
        """How much more is left here than there, over the seeds that both have."""
        theirs = {one.seed: one.readings["oracle"].attack_success.value for one in other.read}
        mine = {one.seed: one.readings["oracle"].attack_success.value for one in self.read}
        return mean([mine[seed] - theirs[seed] for seed in mine if seed in theirs], "seeds")


def repaired(rows: Iterable[Row]) -> list[Repaired]:
    """All rows of the robustness game with a repairer, by attack, m, repairer and number of trusted images.

    Raises:
        StoreError: a row lacks something, e.g. because another version of bezoar wrote it.
    """
    found: dict[tuple[str, float, str, int], Repaired] = {}
    for row in rows:
        game = row["game"]
        if "result" not in row or not game.get("repairer"):
            continue
        key = (kind_of(game["attack"]), dose_of(game["attack"]), kind_of(game["repairer"]), int(game["trusted"]))
        one = found.setdefault(key, Repaired(*key, []))
        read = Robust.read(row)
        if read.seed not in [each.seed for each in one.read]:  # two sweeps may hold the same game
            one.read.append(read)
    return [found[key] for key in sorted(found)]
