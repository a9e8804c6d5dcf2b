"""Figures 3 and 5 to 8 of "Transferable Clean-Label Poisoning Attacks" (Zhu et al., arXiv:1905.05897)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from bezoar.errors import SettingError
from bezoar.measure.estimates import mean
from bezoar.records import Estimate
from bezoar.report.groups import Row
from bezoar.report.page import Picture, Section, Table
from bezoar.report.transfers import Transferred, loss_curves, transfer_sections, transferred
from bezoar.reproduce.outcome import Outcome
from bezoar.reproduce.verdicts import Claim, Compared, judged

COLLISION, POLYTOPE = "feature collision", "convex polytope"
SHARES = {
    "half_24k": ((0.0, 0.5), (0.25, 0.75)),
    "half_48k": ((0.0, 0.5), (0.0, 1.0)),
    "none_24k": ((0.0, 0.5), (0.5, 1.0)),
}
"""The paper's three settings of Figure 6, as shares of the images for pre-training: substitutes', victim's."""


@dataclass(frozen=True)
class Printed:
    """What the paper prints.

    Attributes:
        figures: name -> group of bars -> victim -> value.
        success, accuracy: how far off a printed number may be by chance, absolute.
    """

    figures: dict[str, dict[str, dict[str, float]]]
    success: float
    accuracy: float


def read_printed(path: Path) -> Printed:
    """Read the printed numbers.

    Raises:
        SettingError: the file is missing or no such file.
    """
    try:
        document: dict[str, Any] = yaml.safe_load(path.read_text())
        tolerance = document["ours"]["tolerance"]
        figures = {name: document["paper"][name] for name in ("figure5", "figure6", "figure7", "figure8")}
        return Printed(figures, float(tolerance["success"]), float(tolerance["accuracy"]))
    except OSError as error:
        raise SettingError(f"{path}: the paper's numbers cannot be read ({error.strerror})") from None
    except (yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        raise SettingError(f"{path}: these are not the paper's numbers ({type(error).__name__}: {error})") from None


def figure3(rows: Sequence[Row], path: Path, comparable: bool) -> Outcome:
    """Figure 3: losses in the victim while poisons are crafted, with dropout in the substitutes and without."""
    del path, comparable  # its curves are drawn, not printed
    found = transferred(rows)
    claims = [
        _nearer(found, f"{kind}, no dropout", kind, key, f"{kind}: dropout brings poisons nearer to the target")
        for kind, key in ((POLYTOPE, "victim_polytope"), (COLLISION, "victim_collision"))
    ]
    caption = "Loss in a victim that the attack has not seen; lower is nearer."
    pictures = [Picture(loss_curves(found), caption)] if found else []
    return Outcome([Section("Figure 3", figures=pictures)], [], claims)


def _nearer(found: Sequence[Transferred], more: str, less: str, key: str, text: str) -> Claim:
    """Whether one attack's last loss in the victim is lower than another's, target by target."""
    ends: dict[str, dict[tuple[int, int], float]] = {more: {}, less: {}}
    for one in found:
        if one.attack in ends:
            ends[one.attack] |= {(one.seed, row): value for row, value in one.ends[key].items()}
    both = sorted(ends[more].keys() & ends[less].keys())
    if not both:
        return judged(text, [])
    return judged(text, [("loss less", mean([ends[more][at] - ends[less][at] for at in both], "targets"))])


def figure5(rows: Sequence[Row], path: Path, comparable: bool) -> Outcome:
    """Figure 5: linear victims, Feature Collision against Convex Polytope."""
    printed = read_printed(path)
    every = transferred(rows)
    found = [one for one in every if one.box != "white"]
    compared = [
        cell
        for name, victims in printed.figures["figure5"].items()
        for cell in _cells(found, name.replace("_", " "), victims, printed.success, comparable)
    ]
    claims = [
        _beats(found, POLYTOPE, COLLISION, "Convex Polytope beats Feature Collision"),
        _beats(found, "bullseye polytope", POLYTOPE, "Bullseye Polytope beats Convex Polytope (its own paper's claim)"),
        _above_base(found, POLYTOPE),
        _above_base([one for one in every if one.box == "white"], POLYTOPE, " where it was made on the victim itself"),
    ]
    return Outcome(transfer_sections(_all_but_losses(rows)), compared, claims)


def figure6(rows: Sequence[Row], path: Path, comparable: bool) -> Outcome:
    """Figure 6: the attacker's data are half the victim's, or none of them."""
    printed = read_printed(path)
    found = transferred(rows)
    compared = [
        cell
        for name, victims in printed.figures["figure6"].items()
        for cell in _cells(
            [one for one in found if one.shares == SHARES[name]], POLYTOPE, victims, printed.success, comparable, name
        )
    ]
    half, none = ([one for one in found if one.shares == SHARES[name]] for name in ("half_24k", "none_24k"))
    text = "Poisons transfer better where attacker and victim share half of their data than where they share none"
    claims = [judged(text, [("half less none", gap)] if (gap := _gap(half, none)) is not None else [])]
    claims += [_above_base(none, POLYTOPE, " without shared data")]
    return Outcome(transfer_sections(_all_but_losses(rows)), compared, claims)


def figure7(rows: Sequence[Row], path: Path, comparable: bool) -> Outcome:
    """Figure 7: victims that train everything, Convex Polytope on the features alone and on two layers."""
    printed = read_printed(path)
    found = transferred(rows)
    names = {"features": POLYTOPE, "two_layers": f"{POLYTOPE}, 2 layers"}
    compared = [
        cell
        for name, victims in printed.figures["figure7"].items()
        for cell in _cells(found, names[name], victims, printed.success, comparable)
    ]
    two = names["two_layers"]
    claims = [
        _beats(found, two, POLYTOPE, "Two layers beat the features alone, end to end"),
        _above_base(found, two),
    ]
    return Outcome(transfer_sections(_all_but_losses(rows)), compared, claims)


def figure8(rows: Sequence[Row], path: Path, comparable: bool) -> Outcome:
    """Figure 8: what fine-tuning, and the poisons in it, cost linear victims in clean accuracy."""
    printed = read_printed(path)
    found = transferred(rows)
    columns = {"pretrained": "pretrained", "clean": "fine_tuned", "feature_collision": "poisoned"}
    columns |= {"convex_polytope": "poisoned"}
    compared: list[Compared] = []
    for name, victims in printed.figures["figure8"].items():
        own = [one for one in found if one.attack == name.replace("_", " ")] if "_" in name else found
        for victim, value in victims.items():
            few = [one.accuracy[columns[name]] for one in own if one.victim == victim]
            measured = few[0] if few else None
            compared.append(Compared(f"{name}, {victim}", value, measured, printed.accuracy, comparable))
    costs = [
        (f"{one.attack}, {one.victim}", one.accuracy["fine_tuned"].value - one.accuracy["poisoned"].value)
        for one in found
    ]
    lines = [
        [one.attack, one.victim, *(one.accuracy[name] for name in ("pretrained", "fine_tuned", "poisoned"))]
        for one in found
    ]
    table = Table(("attack", "victim", "pre-trained", "fine-tuned clean", "fine-tuned poisoned"), lines)
    text = "Poisons cost a victim no more than a point of clean accuracy on average"
    spent = (
        [judged(text, [("a point less the cost", mean([0.01 - cost for _, cost in costs], "victims"))])]
        if costs
        else []
    )
    return Outcome([Section("Figure 8", table=table)], compared, spent or [judged(text, [])])


def _all_but_losses(rows: Sequence[Row]) -> list[Row]:
    """Rows without what the referee saw in between, which is Figure 3's."""
    return [{**row, "result": {**row["result"], "looks": row["result"]["looks"][-1:]}} for row in rows]


def _cells(
    found: Sequence[Transferred],
    attack: str,
    victims: dict[str, float],
    tolerance: float,
    comparable: bool,
    where: str = "",
) -> list[Compared]:
    """Printed numbers of one group of bars beside those of the same victims."""
    cells: list[Compared] = []
    for victim, value in victims.items():
        few = [one.success for one in found if (one.attack, one.victim) == (attack, victim)]
        what = ", ".join(part for part in (attack, victim, where.replace("_", " ")) if part)
        cells.append(Compared(what, value, few[0] if few else None, tolerance, comparable))
    return cells


def _gap(more: Sequence[Transferred], less: Sequence[Transferred]) -> Estimate | None:
    """Mean difference in success over targets, each averaged over the victims that both were tried on."""
    theirs = {(one.victim, one.seed): one.hits for one in less}
    pairs = [(one.seed, one.hits, theirs[key]) for one in more if (key := (one.victim, one.seed)) in theirs]
    gaps: dict[tuple[int, int], list[int]] = {}
    for seed, mine, other in pairs:
        for row in mine.keys() & other.keys():
            gaps.setdefault((seed, row), []).append(mine[row] - other[row])
    if not gaps:
        return None
    return _over_targets([sum(several) / len(several) for several in gaps.values()])


def _over_targets(values: Sequence[float]) -> Estimate:
    """The mean of differences in success; where no target differs from another, so many still might (97.5 %)."""
    found = mean(values, "targets")
    if max(values) > min(values):
        return found
    might = 1 - 0.025 ** (1 / len(values))
    return replace(found, low=max(-1.0, found.value - might), high=min(1.0, found.value + might))


def _beats(found: Sequence[Transferred], more: str, less: str, text: str) -> Claim:
    gap = _gap([one for one in found if one.attack == more], [one for one in found if one.attack == less])
    return judged(text, [] if gap is None else [(f"{more} less {less}", gap)])


def _above_base(found: Sequence[Transferred], attack: str, where: str = "") -> Claim:
    """Whether an attack misleads more often than chance does, for victims of each box."""
    text = f"{attack} misleads victims more often than fine-tuning on clean data{where}"
    cases: list[tuple[str, Estimate]] = []
    for box in ("white", "gray", "black"):
        few = [one for one in found if one.attack == attack and one.box == box]
        gains: dict[tuple[int, int], list[int]] = {}
        for one in few:
            for row, hit in one.hits.items():
                gains.setdefault((one.seed, row), []).append(hit - one.natural[row])
        if gains:
            cases.append((f"{box} box", _over_targets([sum(several) / len(several) for several in gains.values()])))
    return judged(text, cases)
