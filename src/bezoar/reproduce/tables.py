"""Tables II and III in the paper's layout, and what the text claims about them."""

from __future__ import annotations

from collections.abc import Sequence

from bezoar.records import Estimate
from bezoar.report.doses import share
from bezoar.report.groups import Row
from bezoar.report.page import Cell, Section, Table
from bezoar.reproduce.measured import Detected, Repaired, detected, repaired
from bezoar.reproduce.numbers import REPAIRERS, TRUSTED, Attacked, Left, Paper
from bezoar.reproduce.outcome import Outcome
from bezoar.reproduce.verdicts import Claim, Compared, counted

REPAIRED = 0.05
"""A model is repaired if so much of the attack is left at most."""

DETECTED = 0.65
"""The lowest ROC AUC that the paper claims for CIFAR-10."""

WORKS = 0.2
"""An attack with less success than this has nothing to detect or to repair; the weakest of Table II has .29."""

OURS = "pivotal_tuning"


def table2(rows: Sequence[Row], paper: Paper, comparable: bool) -> Outcome:
    """Table II: clean accuracy, attack success and detectability of undefended models, by calibrated inversion."""
    found = [one for one in detected(rows) if one.detector == "calibrated_inversion"]
    lines: list[Sequence[Cell]] = []
    if found:
        clean = max((one.clean_accuracy for one in found), key=len)
        lines.append(["no backdoor", "", share(clean), "", ""])
    lines += [[one.attack, f"{one.dose:g}", share(one.accuracy), share(one.success), one.area] for one in found]
    layout = Table(("attack", "m", "clean accuracy", "attack success", "ROC AUC"), lines)
    compared = [cell for line in paper.table2 for cell in _beside(line, found, paper, comparable)]
    of_table = {line.attack: line.m for line in paper.table2}
    own = {
        one.attack: one
        for one in found
        if one.attack in of_table and (not comparable or one.dose == of_table[one.attack])
    }
    least = [
        (f"{one.attack} m = {one.dose:g}", one.area.value >= DETECTED)
        for one in own.values()
        if share(one.success).value > WORKS
    ]
    claims = [counted(f"Every attack of the table that works is detected with a ROC AUC of at least {DETECTED}", least)]
    text = "Means over the poisoned models; ROC AUC over these and the clean ones."
    return Outcome([Section("Table II", text, layout)], compared, claims)


def _beside(line: Attacked, found: Sequence[Detected], paper: Paper, comparable: bool) -> list[Compared]:
    """The three numbers of a printed line beside those measured at its m, or else of the same attack."""
    if line.attack == "no_backdoor":
        clean = max((one.clean_accuracy for one in found), key=len, default=None)
        accuracy = None if clean is None else share(clean)
        return [Compared("no backdoor: clean accuracy", line.accuracy, accuracy, paper.accuracy_tolerance, comparable)]
    own = [one for one in found if one.attack == line.attack]
    one = next((each for each in own if each.dose == line.m), own[-1] if own else None)
    same = comparable and one is not None and one.dose == line.m
    name = f"{line.attack}, m = {line.m}" + ("" if one is None or one.dose == line.m else f" (ours {one.dose:g})")
    success = None if one is None else share(one.success)
    accuracy = None if one is None else share(one.accuracy)
    area = None if one is None else one.area
    return [
        Compared(f"{name}: clean accuracy", line.accuracy, accuracy, paper.accuracy_tolerance, same),
        Compared(f"{name}: attack success", line.success, success, paper.success_tolerance[line.attack], same),
        Compared(f"{name}: ROC AUC", line.area, area, paper.area_tolerance, same),
    ]


def table3(rows: Sequence[Row], paper: Paper, comparable: bool) -> Outcome:
    """Table III: what each repair leaves within the accuracy budget, the lowest of all readings (the oracle's)."""
    found = repaired(rows)
    attacks = list(dict.fromkeys((one.attack, one.dose) for one in found))
    columns = [(repairer, count) for repairer in REPAIRERS.values() for count in TRUSTED.values()]
    lines: list[Sequence[Cell]] = [
        [attack, f"{dose:g}", *(_left(_at(found, attack, dose, *column)) for column in columns)]
        for attack, dose in attacks
    ]
    heads = ("attack", "m", *(f"{repairer}, {count:,}" for repairer, count in columns))
    compared = [_cell(cell, found, paper, comparable) for cell in paper.table3]
    text = (
        "Attack success left, the lowest of all readings within the budget, which no defender could choose (the "
        "paper's protocol); columns: repair and number of trusted images."
    )
    return Outcome([Section("Table III", text, Table(heads, lines))], compared, _claims(found, attacks))


def _at(found: Sequence[Repaired], attack: str, dose: float | None, repairer: str, trusted: int) -> Repaired | None:
    """The cell of an attack; without a dose the first that was measured."""
    for one in found:
        if (one.attack, one.repairer, one.trusted) == (attack, repairer, trusted) and dose in (None, one.dose):
            return one
    return None


def _left(one: Repaired | None) -> Cell:
    return "not measured" if one is None else one.left


def _cell(cell: Left, found: Sequence[Repaired], paper: Paper, comparable: bool) -> Compared:
    one = _at(found, cell.attack, None, cell.repairer, cell.trusted)
    left: Estimate | None = None if one is None else one.left
    what = f"{cell.attack}, {cell.repairer}, {cell.trusted:,} trusted"
    # the paper's own columns of other repairs contradict its Table II in 13 cells, so only its own repair is held to
    return Compared(what, cell.success, left, paper.left_tolerance, comparable and cell.repairer == OURS)


def _claims(found: Sequence[Repaired], attacks: Sequence[tuple[str, float]]) -> list[Claim]:
    """The text's three claims; each is a count over attacks, since a cell is one model."""
    lowest: list[tuple[str, bool]] = []
    done: list[tuple[str, bool]] = []
    sparing: list[tuple[str, bool]] = []
    few, more = list(TRUSTED.values())[:2]
    for attack, dose in attacks:
        name = f"{attack} m = {dose:g}"
        ours = _at(found, attack, dose, OURS, few)
        if ours is None or share([one.attack_success.value for one in ours.read]).value <= WORKS:
            continue
        done.append((name, ours.left.value <= REPAIRED))
        for count, cases in ((few, lowest), (more, sparing)):
            others = [_at(found, attack, dose, repairer, count) for repairer in REPAIRERS.values() if repairer != OURS]
            measured = [one.left.value for one in others if one is not None]
            if len(measured) == len(others):
                cases.append((name, ours.left.value <= min(measured)))
    return [
        counted(f"Pivotal Tuning repairs every attack with {few} trusted images (at most {REPAIRED:.0%} left)", done),
        counted(f"No repair leaves less than Pivotal Tuning, with {few} trusted images", lowest),
        counted(f"Pivotal Tuning needs less data: it leaves no more with {few} than any other with {more:,}", sparing),
    ]
