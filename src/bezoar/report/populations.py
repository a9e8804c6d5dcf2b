"""Detectors compared on populations of models: each alone, a cascade's tiers, and the cascade without some of them.

A cascade's row holds the score that every tier gave every class of every model, so its parts can be judged, and left
out, without inspecting a model again.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from bezoar.component import canonical
from bezoar.errors import StoreError
from bezoar.measure.estimates import auc, auc_difference
from bezoar.measure.outliers import joined_p_values, outlier_p_value
from bezoar.records import Estimate
from bezoar.report.canvas import FAINT, INK, LINES, WIDTH, blank, dress, legend
from bezoar.report.groups import MISSHAPEN, Row, unreadable


@dataclass(frozen=True)
class Seen:
    """What a detector said of one model.

    Attributes:
        seed: of the model; a poisoned model and the clean one of the same seed are twins.
        scores: float [k], higher is more suspicious.
        p_value: of the most suspicious class; 1 where the detector abstained.
        tiers: the scores that each tier of a cascade gave, float [k] each.
        silent: the tiers that did not count for this model.
        target: the attacked class, None for a clean model.
        fidelity: of the reconstructed trigger: success, twin_success and overlap; None if there is none.
    """

    seed: int
    scores: Float[Tensor, "k"]
    p_value: float
    tiers: Mapping[str, Float[Tensor, "k"]]
    silent: frozenset[str] = frozenset()
    target: int | None = None
    fidelity: Mapping[str, Any] | None = None

    @property
    def score(self) -> float:
        """Of the model: its most suspicious class's."""
        return float(self.scores.max())

    @property
    def named(self) -> bool:
        """Whether the most suspicious class is the attacked one."""
        return self.target == int(self.scores.argmax())


@dataclass(frozen=True)
class Population:
    """What one detector said of all models, poisoned ones by attack.

    Attributes:
        detector: its name.
        poisoned: attack -> models, in order of their seeds.
        clean: models, in order of their seeds.
    """

    detector: str
    poisoned: Mapping[str, Sequence[Seen]]
    clean: Sequence[Seen]

    @property
    def pooled(self) -> list[Seen]:
        """The poisoned models of all attacks."""
        return [one for models in self.poisoned.values() for one in models]

    def area(self, attack: str | None = None) -> Estimate:
        """ROC AUC against the clean models, of one attack or of all."""
        models = self.pooled if attack is None else self.poisoned[attack]
        groups = [one.seed for one in models], [one.seed for one in self.clean]
        return auc([one.score for one in models], [one.score for one in self.clean], groups)

    def better_than(self, other: Population) -> Estimate:
        """How much larger the pooled ROC AUC is than another detector's on the same models, paired.

        Models of one seed share initialisation, order and trusted images, so each seed is a group.

        Raises:
            ValueError: the two did not see the same models.
        """
        sides = [
            [[(one.seed, one.target) for one in models] for models in (each.pooled, each.clean)]
            for each in (self, other)
        ]
        if sides[0] != sides[1] or list(self.poisoned) != list(other.poisoned):
            raise ValueError(f"{self.detector} and {other.detector} did not see the same models")
        first, second = (
            ([one.score for one in each.pooled], [one.score for one in each.clean]) for each in (self, other)
        )
        return auc_difference(first, second, ([one.seed for one in self.pooled], [one.seed for one in self.clean]))


def populations(rows: Iterable[Row]) -> dict[str, Population]:
    """Rows of the detectability game by detector, each with all of its attacks.

    The clean models of one detector are the same in all of its rows, so those of the longest row stand for all.

    Raises:
        StoreError: a row lacks something, e.g. because another version of bezoar wrote it, or two rows of one detector
            differ in more than the attack.
    """
    found: dict[str, Population] = {}
    settings: dict[str, str] = {}
    for row in rows:
        _require_alike(row, settings)
        try:
            detector = str(row["game"]["detector"]["kind"]).partition("@")[0]
            seen = {name: [_seen(one) for one in row["result"][name]] for name in ("poisoned", "clean")}
            before = found.get(detector, Population(detector, {}, []))
        except MISSHAPEN as error:
            raise unreadable(row, error) from None
        clean = max(before.clean, seen["clean"], key=len)
        found[detector] = replace(before, poisoned={**before.poisoned, attack_of(row): seen["poisoned"]}, clean=clean)
    return found


def _require_alike(row: Row, settings: dict[str, str]) -> None:
    """Remember a detector's settings and those of its game, or see that they are as before."""
    game = row["game"]
    kind = str(game["detector"]["kind"]).partition("@")[0]
    others = canonical({name: value for name, value in game.items() if name != "attack"})
    if settings.setdefault(kind, others) != others:
        raise StoreError(
            f"row {row.get('address', '?')}: another row of {kind!r} was played with other settings than the attack's, "
            "so their clean models are not the same; keep them in files of their own"
        )


def attack_of(row: Row) -> str:
    """The attack of a row and how much it poisons."""
    attack = row["game"]["attack"]
    dose = f"m = {attack['poisons']}" if "poisons" in attack else f"{attack['fraction']:g} of the parameters"
    return f"{str(attack['kind']).partition('@')[0]}, {dose}"


def _seen(one: Mapping[str, Any]) -> Seen:
    said = one.get("tiers", [])
    return Seen(
        one["seed"],
        torch.tensor(one["scores"]),
        1.0 if one["abstained"] else one["p_value"],
        {each["kind"]: torch.tensor(one["evidence"][each["kind"]]) for each in said},
        frozenset(each["kind"] for each in said if each["p_value"] is None),
        one.get("target"),
        cast("Mapping[str, Any] | None", one.get("fidelity")),
    )


def tier(cascade: Population, name: str) -> Population:
    """What one tier says alone: its own scores, and Grubbs' test on them; 1 where it gives no verdict."""

    def alone(one: Seen) -> Seen:
        scores = one.tiers[name]
        said = 1.0 if name in one.silent else outlier_p_value(scores)
        return Seen(one.seed, scores, said, {}, target=one.target)

    return _mapped(cascade, name, alone)


def of_tiers(cascade: Population, names: Sequence[str]) -> Population:
    """The cascade as it would be with some of its tiers, joined as `Cascade` joins them; silent ones do not count."""

    def joined(one: Seen) -> Seen:
        counted = [one.tiers[name] for name in names if name not in one.silent]
        together = joined_p_values(torch.stack(counted)) if counted else torch.ones(len(one.scores))
        family_wise = min(1.0, len(together) * float(together.min()))
        return Seen(one.seed, -together.log10().float(), family_wise, one.tiers, one.silent, one.target)

    return _mapped(cascade, " + ".join(names), joined)


def subsets(names: Sequence[str]) -> list[tuple[str, ...]]:
    """All ways to keep at least one tier, the fullest first."""
    return [few for size in range(len(names), 0, -1) for few in itertools.combinations(names, size)]


def _mapped(cascade: Population, name: str, change: Callable[[Seen], Seen]) -> Population:
    poisoned = {attack: [change(one) for one in models] for attack, models in cascade.poisoned.items()}
    return Population(name, poisoned, [change(one) for one in cascade.clean])


def areas(found: Sequence[Population]) -> Figure:
    """ROC AUC of every detector with its interval, a group for each attack and one for all of them pooled."""
    figure = blank(WIDTH, 3.6)
    axes: Axes = figure.subplots()
    attacks = list(found[0].poisoned)
    groups: list[str | None] = [*attacks, None]
    step = 0.8 / len(found)
    for number, population in enumerate(found):
        colour = LINES[number % len(LINES)]
        for place, attack in enumerate(groups):
            if attack not in population.poisoned and (attack is not None or list(population.poisoned) != attacks):
                continue  # not measured on all attacks yet
            each = population.area(attack)
            across = place + (number - (len(found) - 1) / 2) * step
            axes.plot([across, across], [each.low, each.high], color=colour, linewidth=2.2, alpha=0.45)
            label = population.detector.replace("_", " ") if place == 0 else None
            axes.plot([across], [each.value], linestyle="", marker="o", markersize=6, color=colour, label=label)
    axes.axhline(0.5, color=INK, linewidth=1, linestyle=(0, (1, 2)))
    axes.axvline(len(attacks) - 0.5, color=FAINT, linewidth=1)
    dress(axes, across="", up="ROC AUC")
    axes.set_xticks(
        range(len(groups)), [*(name.replace(", ", "\n").replace("_", " ") for name in attacks), "all\npooled"]
    )
    axes.set_ylim(0, 1.04)
    legend(figure, axes, 3)
    return figure


def class_histograms(found: Sequence[Population], attack: str) -> Figure:
    """Scores of single classes of poisoned models: the attacked one against all others (the paper's Figure 9)."""
    figure = blank(WIDTH, 2.6 * -(-len(found) // 2))
    cells: Iterable[Axes] = figure.subplots(-(-len(found) // 2), min(2, len(found)), squeeze=False).flat
    for population, axes in zip(found, cells, strict=False):
        models = population.poisoned[attack]
        attacked = [float(one.scores[one.target]) for one in models if one.target is not None]
        others = [float(score) for one in models for place, score in enumerate(one.scores) if place != one.target]
        edges = torch.linspace(min(*attacked, *others), max(*attacked, *others) + 1e-9, 25).tolist()
        for values, colour, name in ((others, LINES[0], "other classes"), (attacked, LINES[1], "the attacked class")):
            axes.hist(values, bins=edges, density=True, color=colour, alpha=0.6, label=name)
        dress(axes, across="score of a class", up="", title=population.detector.replace("_", " "))
        axes.set_yticks([])
    legend(figure, figure.axes[0], 2)
    return figure
