"""Rows of the certification game: which certificates a poisoned model loses, what that costs, and what defences do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bezoar.records import Estimate
from bezoar.report.canvas import BLUE, LINES, MUTED, VERMILLION, WIDTH, blank, dress, in_percent, legend
from bezoar.report.certificates import MEASURABLE, Certified, certified
from bezoar.report.groups import Row, seeds_cell
from bezoar.report.page import Cell, Picture, Section, Table, number, percent
from bezoar.report.refusals import refusal_section

MARKERS = ("", "o", "s", "^")
"""Of lines whose colour has been there before."""


def certification_sections(rows: Sequence[Row]) -> list[Section]:
    """What attacks take away, what a system pays, and what defences give back; nothing without rows."""
    found = certified(rows)
    bare = [one for one in found if not one.defence]
    settings = list(dict.fromkeys(one.setting for one in bare))
    sections = [_losses(each, [one for one in bare if one.setting == each]) for each in settings]
    defended = [one for one in found if one.defence]
    sections += [_defences(defended, bare)] if defended else []
    noticed = refusal_section(bare)
    sections += [noticed] if noticed is not None else []
    return [*sections, *([_systems(bare)] if bare else [])]


def _losses(setting: tuple[str, str, str, str], found: Sequence[Certified]) -> Section:
    columns = ("attack", "seeds", "certificates lost", "stamped: twin", "stamped: poisoned", "certified and wrong")
    columns += ("clean: twin", "clean: poisoned", "clean accuracy lost")
    lines: list[Sequence[Cell]] = [
        [
            one.attack,
            len(one.rows),
            seeds_cell(one.estimates("drop", "certified"), signed=True) if one.measurable else "not measurable",
            seeds_cell(one.estimates("twin", "stamped", "certified")),
            seeds_cell(one.estimates("suspect", "stamped", "certified")),
            seeds_cell(one.estimates("suspect", "stamped", "certified_wrong")),
            seeds_cell(one.estimates("twin", "clean", "certified")),
            seeds_cell(one.estimates("suspect", "clean", "certified")),
            seeds_cell(one.estimates("stealth", "right"), signed=True),
        ]
        for one in found
    ]
    data, network, trainer, certifier = setting
    text = (
        f"A {network} trained by {trainer}, certified by {certifier}. Shares of test images whose answer is "
        "certified, of the poisoned model and of its unpoisoned twin, clean and with the trigger. Certificates lost: "
        "the twin's share of stamped images minus the poisoned one's. An attack that has its wrong answers certified "
        "is one on integrity, not on availability. Where the twin has fewer than "
        f"{MEASURABLE:.0%} of stamped images certified, a loss is not measurable."
    )
    caption = (
        "Stamped images, mean over seeds. Grey: certified by the twin; blue: by the poisoned model; ring: wrongly."
    )
    pictures = [Picture(stamped_shares(found), caption)]
    if any(_graded(one) for one in found):
        caption = "Certified share over the radius, mean over seeds; dashed: and right. Grey: the first attack's twin."
        pictures.append(Picture(attack_curves(found), caption))
    return Section(f"Certificates under attack: {data}", text, Table(columns, lines), pictures)


def _graded(one: Certified) -> bool:
    """Whether images have radii of their own, rather than one or none."""
    curve = one.rows[0]["result"]["twin"]["clean"]["curve"]["certified"]
    return len(set(curve)) > 2


def stamped_shares(found: Sequence[Certified]) -> Figure:
    """What is certified of stamped images, one line for each attack."""
    figure = blank(WIDTH, 0.9 + 0.3 * len(found))
    axes = figure.subplots()
    places = range(len(found))[::-1]
    for place, one in zip(places, found, strict=True):
        twin, suspect, wrong = (
            one.value(who, "stamped", name)
            for who, name in (("twin", "certified"), ("suspect", "certified"), ("suspect", "certified_wrong"))
        )
        axes.plot([twin, suspect], [place, place], color=MUTED, linewidth=1.2, zorder=1)
        axes.scatter([twin], [place], color=MUTED, s=38, zorder=2)
        axes.scatter([suspect], [place], color=BLUE, s=38, zorder=3)
        axes.scatter([wrong], [place], facecolors="none", edgecolors=VERMILLION, s=70, linewidths=1.4, zorder=4)
    dress(axes, across="certified", up="")
    axes.set_yticks(list(places), [one.attack for one in found])
    axes.set_xlim(-0.03, 1.03)
    in_percent(axes, "x")
    return figure


def attack_curves(found: Sequence[Certified]) -> Figure:
    """Certified share over the radius, clean beside stamped images: the twin, and every attack's poisoned model."""
    figure = blank(WIDTH, 3.4)
    panels = list[Axes](figure.subplots(1, 2, sharey=True))
    for axes, where in zip(panels, ("clean", "stamped"), strict=True):
        _curve(axes, found[0], "twin", where)
        for place, one in enumerate(found):
            _curve(axes, one, "suspect", where, place)
        dress(axes, across="radius", up="certified" if where == "clean" else "", title=f"{where} images")
        axes.set_ylim(-0.02, 1.02)
        in_percent(axes)
    legend(figure, panels[1], len(found) + 1)
    return figure


def _curve(axes: Axes, one: Certified, who: str, where: str, place: int | None = None) -> None:
    """One model's curves; an attack has its place among the others, from which colour and mark follow."""
    colour, mark = (MUTED, "") if place is None else (LINES[place % len(LINES)], MARKERS[place // len(LINES) % 4])
    curves = [row["result"][who][where]["curve"] for row in one.rows]
    radius = curves[0]["radius"]
    for name, style in (("certified", "-"), ("certified_correct", "--")):
        rates = np.mean([curve[name] for curve in curves], axis=0)
        axes.step(
            radius,
            rates,
            style,
            where="pre",
            color=colour,
            linewidth=1.6 if style == "-" else 1.0,
            marker=mark if style == "-" else "",
            markevery=5,
            markersize=4,
            label=("twin" if place is None else one.attack) if style == "-" else None,
        )


def _systems(found: Sequence[Certified]) -> Section:
    """The system view, for every accuracy and capacity of the fallback."""
    lines: list[Sequence[Cell]] = []
    for one in found:
        for place, system in enumerate(one.rows[0]["result"]["systems"]):
            each = [row["result"]["systems"][place] for row in one.rows]
            few = {
                name: [Estimate.from_json(entry[name]) for entry in each]
                for name in ("served", "twin_served", "accuracy", "twin_accuracy")
            }
            capacity = system["capacity"]
            lines.append(
                [
                    f"{one.attack} ({one.certifier})",
                    number(float(np.mean([entry["fallback_accuracy"] for entry in each]))),
                    "all" if capacity is None else percent(float(capacity)),
                    seeds_cell(few["served"]),
                    seeds_cell(few["twin_served"]),
                    seeds_cell(few["accuracy"]),
                    seeds_cell(few["twin_accuracy"]),
                    _load([entry["load"] for entry in each]),
                ]
            )
    columns = (
        "attack",
        "fallback's accuracy",
        "its capacity",
        "served",
        "twin: served",
        "right",
        "twin: right",
        "load",
    )
    text = (
        "A system takes certified answers and asks a fallback for the others, which has time for a share of all "
        "queries; here every query is stamped. Load: how many times as many queries fall back as with the twin."
    )
    return Section("What a system pays", text, Table(columns, lines), folded=True)


def _load(loads: Sequence[Mapping[str, Any] | None]) -> Cell:
    known = [Estimate.from_json(one) for one in loads if one is not None]
    if len(known) < len(loads):
        return "twin hardly falls back"
    return known[0] if len(known) == 1 else " and ".join(number(one.value) for one in known)


def _defences(found: Sequence[Certified], bare: Sequence[Certified]) -> Section:
    """Every defence beside the same game without it."""
    plain = {(one.setting, one.attack): one for one in bare}
    lines: list[Sequence[Cell]] = []
    for one in found:
        without = plain.get((one.setting, one.attack))
        lines.append(
            [
                one.defence,
                one.attack,
                one.certifier,
                len(one.rows),
                seeds_cell(one.estimates("suspect", "stamped", "certified")),
                _changed("recovered", one, without),
                _changed("given_up", one, without),
                seeds_cell(one.estimates("suspect", "stamped", "certified_correct")),
                _told(one),
            ]
        )
    columns = (
        "defence",
        "attack",
        "certifier",
        "seeds",
        "stamped: certified",
        "given back, stamped",
        "given up, clean",
    )
    columns += ("stamped: certified and right", "poison told apart (ROC AUC)")
    text = (
        "What a defence gives back on stamped images, and what it gives up on clean ones: certified share of the "
        "poisoned model with the defence against that without. Where the defence is another certifier or trainer, the "
        "two are games of their own, and the interval joins theirs at the far ends. A guard leaves the model as it is. "
        "No defence knows the attack."
    )
    return Section("Defences of certificates", text, Table(columns, lines))


def _changed(name: Literal["recovered", "given_up"], one: Certified, without: Certified | None) -> Cell:
    """What a defence gives back, or gives up: paired within a game, else against the game of the seed without it."""
    if all(name in row["result"] for row in one.rows):
        return seeds_cell(one.estimates(name, "certified"), signed=True)
    if all("guard" in row["result"] for row in one.rows):
        return "nothing"
    before = {} if without is None else without.by_seed("suspect", PLACES[name], "certified")
    after = one.by_seed("suspect", PLACES[name], "certified")
    pairs = [(after[seed], before[seed]) for seed in after if seed in before]
    if name == "given_up":
        pairs = [(old, new) for new, old in pairs]
    return (
        seeds_cell([_minus(first, second) for first, second in pairs], signed=True) if pairs else "no game without it"
    )


PLACES = {"recovered": "stamped", "given_up": "clean"}
"""On which images."""


def _minus(first: Estimate, second: Estimate) -> Estimate:
    """A difference whose interval joins the two at their far ends."""
    ends = max(-1.0, first.low - second.high), min(1.0, first.high - second.low)
    return Estimate(first.value - second.value, *ends, first.n, first.unit)


def _told(one: Certified) -> Cell:
    """How well a sanitizer told rows or a guard told queries apart."""
    for part in ("defence", "guard"):
        entries = [row["result"].get(part) or {} for row in one.rows]
        if all(entry.get("auc") is not None for entry in entries):
            return seeds_cell([Estimate.from_json(entry["auc"]) for entry in entries], in_percent=False)
    return ""
