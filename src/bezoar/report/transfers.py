"""Rows of the transfer game: what triggerless poisons do to victims that their maker has never seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from bezoar.measure.estimates import mean
from bezoar.records import Estimate
from bezoar.report.canvas import INK, LINES, MUTED, WIDTH, blank, dress, in_percent, legend
from bezoar.report.groups import MISSHAPEN, Row, kind_of, unreadable
from bezoar.report.page import Cell, Percent, Picture, Section, Table

LOSSES = {"victim_polytope": "Convex Polytope's loss", "victim_collision": "Feature Collision's loss"}
Box = Literal["white", "gray", "black"]
SANITIZED = ("auc", "poisoned_removed", "clean_removed", "success")
MARKERS = ("o", "s", "^", "D", "v", "P")


@dataclass(frozen=True)
class Transferred:
    """One row, read.

    Attributes:
        attack: its kind, and what else tells it from others of the kind.
        victim: the architecture.
        box: white where the victim is a substitute, gray where a substitute is of its kind, black otherwise.
        transfer: ``linear`` or ``end_to_end``.
        shares: from which to which part of the data substitutes and victim were pre-trained on.
        seed: of the game.
        success, base_rate: over targets.
        accuracy: clean accuracy of the victim as ``pretrained``, as ``fine_tuned`` on clean data, and as ``poisoned``.
        hits, natural: target's row -> 1 where a victim gave it the poisons' label, else 0, with poisons and without.
        ends: ``victim_polytope`` and ``victim_collision`` -> target's row -> that loss in the pre-trained victim.
        looks: of the referee while the attack crafted.
        sanitizer: which one ranked the rows, or empty.
        sanitized: what it made of them: ``auc``, ``poisoned_removed``, ``clean_removed``, and ``success`` after that.
    """

    attack: str
    victim: str
    box: Box
    transfer: str
    shares: tuple[tuple[float, float], tuple[float, float]]
    seed: int
    success: Estimate
    base_rate: Estimate
    accuracy: dict[str, Estimate]
    hits: dict[int, int]
    natural: dict[int, int]
    ends: dict[str, dict[int, float]]
    looks: list[dict[str, float | int]]
    sanitizer: str
    sanitized: dict[str, Estimate]

    @staticmethod
    def read(row: Row) -> Transferred:
        """The row of a transfer game.

        Raises:
            StoreError: the row lacks something, e.g. because another version of bezoar wrote it.
        """
        try:
            game, result = row["game"], row["result"]
            attack, victim = game["attack"], kind_of(game["architecture"])
            first, second = (tuple(float(part) for part in game[f"{name}_data"]) for name in ("substitute", "victim"))
            return Transferred(
                _label(attack),
                victim,
                _box(game),
                str(game["transfer"]),
                ((first[0], first[1]), (second[0], second[1])),
                int(game["seed"]),
                Estimate.from_json(result["success"]),
                Estimate.from_json(result["base_rate"]),
                {name: Estimate.from_json(one) for name, one in result["clean_accuracy"].items()},
                _fooled(result, attack, "predicted"),
                _fooled(result, attack, "natural"),
                {name: {int(one["row"]): float(one[name]) for one in result["targets"]} for name in LOSSES},
                list(result["looks"]),
                kind_of(game["sanitizer"]) if game.get("sanitizer") else "",
                {name: Estimate.from_json(result["sanitized"][name]) for name in SANITIZED}
                if game.get("sanitizer")
                else {},
            )
        except MISSHAPEN as error:
            raise unreadable(row, error) from None


def _box(game: Row) -> Box:
    if game.get("victim") == "substitute":
        return "white"
    known = {kind_of(one) for one in game["attack"]["substitutes"]}
    return "gray" if kind_of(game["architecture"]) in known else "black"


def _fooled(result: Row, attack: Row, said: str) -> dict[int, int]:
    return {int(one["row"]): int(one[said] == attack["base_class"]) for one in result["targets"]}


def transferred(rows: Sequence[Row]) -> list[Transferred]:
    """All rows of the transfer game, in their order."""
    return [Transferred.read(row) for row in rows if "result" in row and kind_of(row["game"]) == "transfer"]


def _label(attack: Row) -> str:
    """What tells an attack from others: its kind, layers, dropout and draws where they are not the plain ones."""
    words = [kind_of(attack).replace("_", " ")]
    if attack["layers"] > 1:
        words.append(
            f"{attack['layers']} layers" + (", as released" if attack.get("last_layer") == "collision" else "")
        )
    if not any(attack["dropout"]):
        words.append("no dropout")
    if attack.get("draws", 1) > 1:
        words.append(f"{attack['draws']} draws")
    if attack.get("form") == "proximal":
        words.append("proximal")
    return ", ".join(words)


def transfer_sections(rows: Sequence[Row]) -> list[Section]:
    """Success for every attack and victim, its base rate and what it costs, and the losses while it was crafted."""
    found = sorted(transferred(rows), key=lambda one: one.shares)
    if not found:
        return []
    shares = sorted({one.shares for one in found})
    lines: list[Sequence[Cell]] = [
        [
            one.attack,
            f"{one.victim} ({one.box} box)",
            one.transfer.replace("_", " "),
            *([overlap(one)] if len(shares) > 1 else []),
            Percent(one.success),
            Percent(one.base_rate),
            *(Percent(one.accuracy[name], bar=False) for name in ("pretrained", "fine_tuned", "poisoned")),
        ]
        for one in found
    ]
    columns = ["attack", "victim", "it trains", *(["shared data"] if len(shares) > 1 else []), "success", "base rate"]
    columns += ["accuracy, pre-trained", "fine-tuned clean", "fine-tuned poisoned"]
    text = (
        "A target counts as success if the victim gives it the poisons' label. The base rate is how often a victim "
        "fine-tuned on clean data does. A white-box victim is one of the substitutes, a gray-box victim another model "
        "of their architectures, a black-box victim of none of these."
    )
    parts = list(dict.fromkeys((one.transfer, one.shares) for one in found))
    pictures = [
        Picture(success_bars(few), _caption(few))
        for part in parts
        if (few := [one for one in found if (one.transfer, one.shares) == part])
    ]
    sections = [Section("Triggerless poisons", text, Table(tuple(columns), lines), pictures)]
    watched = [one for one in found if len(one.looks) > 1 and not one.sanitizer]
    return [*sections, *_screened(found), *([loss_section(watched)] if watched else [])]


def _screened(found: Sequence[Transferred]) -> list[Section]:
    """What sanitizers find of triggerless poisons."""
    lines: list[Sequence[Cell]] = [
        [
            one.attack,
            one.victim,
            one.sanitizer,
            one.sanitized["auc"],
            *(Percent(one.sanitized[name]) for name in ("poisoned_removed", "clean_removed")),
            Percent(one.success),
            Percent(one.sanitized["success"]),
        ]
        for one in found
        if one.sanitizer
    ]
    columns = ("attack", "victim", "sanitizer", "ROC AUC of rows", "poisons removed", "clean rows removed")
    text = (
        "A sanitizer ranks the rows that a victim was fine-tuned on by that victim's features; the most suspicious go, "
        "and the victim is fine-tuned again. It knows neither the attack nor its targets. Means over targets."
    )
    table = Table((*columns, "success before", "success after"), lines)
    return [Section("Triggerless poisons, screened", text, table)] if lines else []


def _caption(few: Sequence[Transferred]) -> str:
    trains = "their head alone" if few[0].transfer == "linear" else "everything"
    return (
        f"Victims that train {trains}; {overlap(few[0])}. Bars are 95 % intervals over targets, a cross the base rate."
    )


def overlap(one: Transferred) -> str:
    """How much of the victim's data for pre-training the substitutes saw, in words, and how much data these are."""
    (start, end), (first, last) = one.shares
    shared = max(0.0, min(end, last) - max(start, first)) / (last - first)
    whole = "" if last - first == 1 else f", which are {100 * (last - first):.0f} % of the images"
    return f"substitutes share {100 * shared:.0f} % of the victim's data{whole}"


def success_bars(found: Sequence[Transferred]) -> Figure:
    """Success of each attack on each victim, side by side, seeds averaged."""
    attacks = list(dict.fromkeys(one.attack for one in found))
    victims = list(dict.fromkeys((one.victim, one.box) for one in found))
    figure = blank(WIDTH, 3.4)
    axes: Axes = figure.subplots()
    width = 0.8 / len(attacks)
    for number, attack in enumerate(attacks):
        for place, (victim, box) in enumerate(victims):
            few = [one for one in found if (one.attack, one.victim, one.box) == (attack, victim, box)]
            if not few:
                continue
            value = few[0].success if len(few) == 1 else mean([one.success.value for one in few], "seeds")
            at = place + (number - (len(attacks) - 1) / 2) * width
            colour = LINES[number % len(LINES)]
            label = attack if place == 0 else None
            axes.bar(at, value.value, 0.9 * width, color=colour, alpha=0.35, label=label)
            axes.errorbar(
                at,
                value.value,
                [[max(0.0, value.value - value.low)], [max(0.0, value.high - value.value)]],
                color=colour,
                marker=MARKERS[number % len(MARKERS)],
                markersize=4.5,
                linewidth=1.2,
            )
            base = float(np.mean([one.base_rate.value for one in few]))
            axes.plot(at, base, color=INK, marker="x", markersize=5, linestyle="")
    dress(axes, across="", up="success")
    axes.set_xticks(range(len(victims)))
    axes.set_xticklabels([f"{victim}\n{box} box" for victim, box in victims], fontsize=8.5)
    if len(victims) > 5:
        axes.tick_params(axis="x", labelrotation=25)
    axes.set_ylim(-0.03, 1.03)
    in_percent(axes)
    legend(figure, axes, len(attacks))
    return figure


def loss_section(found: Sequence[Transferred]) -> Section:
    """How near the poisons come to their targets in the victim's features, while they are crafted on substitutes."""
    text = (
        "Mean over targets. The attack never sees the victim; the referee looks at its poisons as they stand. Left the "
        "loss that Convex Polytope minimises (Eq. 3, one network), right Feature Collision's (Eq. 2), both in the "
        "pre-trained victim without dropout."
    )
    caption = "Loss in the victim over steps of crafting; lower is nearer."
    return Section("While poisons are crafted", text, figures=[Picture(loss_curves(found), caption)])


def loss_curves(found: Sequence[Transferred]) -> Figure:
    """Both losses in the victim's features over the steps of the attack."""
    figure = blank(WIDTH, 3.2)
    panels = list[Axes](figure.subplots(1, 2))
    victims = {one.victim for one in found}
    for number, one in enumerate(found):
        steps = [look["step"] for look in one.looks]
        label = one.attack if len(victims) == 1 else f"{one.attack}: {one.victim}"
        for axes, name in zip(panels, LOSSES, strict=True):
            axes.plot(
                steps,
                [look[name] for look in one.looks],
                color=LINES[number % len(LINES)] if number < 2 * len(LINES) else MUTED,
                marker=MARKERS[number % len(MARKERS)],
                markersize=3.5,
                linewidth=1.5,
                label=label,
            )
    for axes, name in zip(panels, LOSSES.values(), strict=True):
        dress(axes, across="step", up="", title=name)
        axes.set_yscale("log")
        for which in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
            which(FuncFormatter(lambda value, _: f"{value:.3g}"))
    legend(figure, panels[0], 2)
    return figure
