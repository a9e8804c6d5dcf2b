"""The page of many result rows: what each repair leaves of an attack, and how well a detector tells models apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bezoar.games.repairing import Point
from bezoar.measure.estimates import mean, proportion
from bezoar.owner import ALPHA
from bezoar.records import Estimate
from bezoar.report.certification import certification_sections
from bezoar.report.doses import Dose, dose_curves, doses, share
from bezoar.report.examined import examined_sections
from bezoar.report.figures import Dot, repair_curves, score_strips
from bezoar.report.groups import MISSHAPEN, READINGS, Group, Robust, Row, group, guarded, over_seeds, unreadable
from bezoar.report.page import MINUS, Cell, Percent, Picture, Section, Table, number, percent, write_page
from bezoar.report.parts import write_parts, write_rows
from bezoar.report.plane import plane_sections
from bezoar.report.sanitizers import has_sanitizer, sanitizer_sections
from bezoar.report.tradeoffs import trade_off
from bezoar.report.transfers import transfer_sections
from bezoar.report.words import glossary, intervals


def results_page(path: Path, rows: Sequence[Row]) -> None:
    """The page of `bezoar report`; beside it all rows (`rows.csv`, `rows.parquet`), `tables` and `figures`.

    Args:
        path: the HTML file.
        rows: as `bezoar.sweep.play` makes them; a row with `error` is listed as such.

    Raises:
        StoreError: a row is of another version of bezoar, or a file cannot be written.
    """
    failed = [row for row in rows if "error" in row]
    played: dict[str, list[Row]] = {}
    for row in rows:
        if "error" not in row:
            played.setdefault(_game(row), []).append(row)
    names = ("robustness", "detectability", "transfer", "certification")
    robust, detected, moved, vouched = (played.pop(name, []) for name in names)
    others = [row for few in played.values() for row in few]
    repaired = [row for row in robust if row["game"].get("repairer") is not None]
    undefended = [row for row in robust if row["game"].get("repairer") is None and not has_sanitizer(row)]
    sections = [
        *guarded(_attacks, undefended),
        *guarded(sanitizer_sections, [row for row in robust if has_sanitizer(row)]),
        *guarded(_robustness, repaired),
        *guarded(_detectability, detected),
        *guarded(plane_sections, [*repaired, *detected]),
        *guarded(transfer_sections, moved),
        *guarded(examined_sections, moved),
        *guarded(certification_sections, vouched),
        *_rest(failed, others),
    ]
    if robust or detected:
        sections += [_settings(rows), glossary(), intervals()]
    counts = dict(zip(names, map(len, (robust, detected, moved, vouched)), strict=True))
    counts |= {"other": len(others), "failed": len(failed)}
    parts = [f"{count} {name}" for name, count in counts.items() if count]
    write_page(
        path,
        title="bezoar results",
        verdict=f"{len(rows)} {'game' if len(rows) == 1 else 'games'}: {', '.join(parts) or 'none played yet'}",
        tone="bad" if failed else "open",
        summary="Every number stands with its interval and with how many units it rests on. Beside this page lie all "
        "rows (rows.csv, rows.parquet), and its tables and figures as files.",
        sections=sections,
        provenance=guarded(provenance_of, rows),
    )
    write_rows(path.parent, rows)
    write_parts(path.parent, sections)


def _game(row: Row) -> str:
    try:
        return str(row["game"]["kind"]).split("@")[0]
    except MISSHAPEN as error:
        raise unreadable(row, error) from None


def _attacks(rows: Sequence[Row]) -> list[Section]:
    """Games without a repairer: what attacks do to undefended models, data set by data set."""
    sections: list[Section] = []
    for data in dict.fromkeys(str(row["game"]["data"]["kind"]).split("@")[0] for row in rows):
        found = doses([row for row in rows if str(row["game"]["data"]["kind"]).split("@")[0] == data])
        lines: list[list[Cell]] = [
            [dose.attack, f"{dose.amount:g} {dose.unit}", len(dose.success), *map(_seeds, _columns(dose))]
            for dose in found
        ]
        columns = ("attack", "strength", "seeds", "attack success", "natural success", "clean accuracy", "twin's")
        sections.append(
            Section(
                f"Attacks on undefended models: {data}",
                "How much poison an attack needs. Natural success is that of the same trigger on the clean twin.",
                Table(columns, lines),
                [Picture(dose_curves(found), "Shaded: 95 % interval of the mean over seeds.")],
            )
        )
    return sections


def _columns(dose: Dose) -> tuple[list[float], ...]:
    return dose.success, dose.natural, dose.clean, dose.twin


def _seeds(values: Sequence[float]) -> Cell:
    """A mean over seeds, or with one or two the values themselves, which say more."""
    return Percent(share(values)) if len(values) > 2 else " and ".join(percent(value) for value in values)


def _robustness(rows: Sequence[Row]) -> list[Section]:
    if not rows:
        return []
    groups = {one.label: [Robust.read(row) for row in one.rows] for one in group(rows, "repairer")}
    lines: list[list[Cell]] = []
    for label, read in groups.items():
        for reading in READINGS:
            points = [one.readings[reading] for one in read]
            lines.append(
                [label if reading == READINGS[0] else "", reading, len(read), *_average(points), _succ(points)]
            )
    columns = (
        "game",
        "reading",
        "seeds",
        "attack success left",
        "clean accuracy lost",
        f"clean accuracy {MINUS} attack success",
    )
    figure = trade_off({label: [one.row for one in read] for label, read in groups.items()})
    text = (
        "How much of the attack a repair leaves, and what it costs. With one or two seeds the values stand for "
        "themselves."
    )
    marked = frozenset(place for place, line in enumerate(lines) if line[1] == "blind")
    caption = "One mark per seed and reading; the lower left is best. Filled: blind, what a defender gets."
    overview = Section("Robustness", text, Table(columns, lines, marked), [Picture(figure, caption)])
    return [overview, *(_repair(label, read) for label, read in groups.items())]


def _average(points: Sequence[Point]) -> list[Cell]:
    """Attack success left and clean accuracy lost, over seeds."""
    left, lost = [point.attack_success for point in points], [point.lost for point in points]
    return [
        over_seeds(left, _mean_share(left)),
        over_seeds(lost, Percent(mean([one.value for one in lost], "seeds"), bar=False)),
    ]


def _mean_share(shares: Sequence[Estimate]) -> Percent:
    """The mean of shares; Student's interval knows no edges, so it is cut where a share ends."""
    average = mean([one.value for one in shares], "seeds")
    return Percent(replace(average, low=max(0.0, average.low), high=min(1.0, average.high)))


def _succ(points: Sequence[Point]) -> Cell:
    """Succ = E[clean accuracy - attack success] (Lukas & Kerschbaum, Definition 1), over seeds."""
    values = [point.clean_accuracy.value - point.attack_success.value for point in points]
    return mean(values, "seeds") if len(values) > 2 else " and ".join(number(value) for value in values)


def _repair(label: str, read: Sequence[Robust]) -> Section:
    """Every seed of one group, its mean, and the curves."""
    lines: list[list[Cell]] = []
    for one in read:
        readings = [
            (Percent(one.readings[name].attack_success), Percent(one.readings[name].lost, bar=False))
            for name in READINGS
        ]
        cells = (cell for pair in readings for cell in pair)
        lines.append(
            [
                f"seed {one.seed}",
                Percent(one.clean_accuracy),
                Percent(one.attack_success),
                Percent(one.natural_success),
                *cells,
            ]
        )
    if len(read) > 1:
        before = (
            [getattr(one, name) for one in read] for name in ("clean_accuracy", "attack_success", "natural_success")
        )
        means = [over_seeds(few, _mean_share(few)) for few in before]
        averages = [cell for name in READINGS for cell in _average([one.readings[name] for one in read])]
        lines.append([f"mean of {len(read)}" if len(read) > 2 else "both", *means, *averages])
    columns = ["seed", "suspect: clean accuracy", "suspect: attack success", "natural success"]
    columns += [f"{name}: {what}" for name in READINGS for what in ("attack success", "accuracy lost")]
    marked = frozenset({len(read)})
    curves = {f"seed {one.seed}": one.curve for one in read}
    picture = Picture(
        repair_curves(curves, float(read[0].row["game"]["budget"])),
        f"{label}: the whole repair, with all trusted pictures.",
    )
    return Section(label, table=Table(columns, lines, marked), figures=[picture])


def _detectability(rows: Sequence[Row]) -> list[Section]:
    if not rows:
        return []
    lines: list[list[Cell]] = []
    parts: list[Section] = []
    for one in group(rows, "detector"):
        for row in one.rows:
            name = f"{one.label}, seeds from {row['game']['seed']}"
            lines.append([name, *_detection(row["result"])])
            parts.append(_scores(name, row))
    columns = ("game", "AUC", "right class named", "above its twin", f"false alarms (p < {ALPHA:g})", "abstained")
    text = (
        "Can poisoned models be told from clean ones? A false alarm is a clean model that is called suspicious by "
        "itself."
    )
    return [Section("Detectability", text, Table(columns, lines)), *parts]


def _detection(result: Mapping[str, Any]) -> list[Cell]:
    alarms = [one["p_value"] < ALPHA and not one["abstained"] for one in result["clean"]]
    silent = [bool(one["abstained"]) for one in (*result["poisoned"], *result["clean"])]
    return [
        Estimate.from_json(result["auc"]),
        Percent(Estimate.from_json(result["right_class"])),
        Percent(Estimate.from_json(result["above_twin"])),
        Percent(proportion(torch.tensor(alarms), unit="clean models")),
        Percent(proportion(torch.tensor(silent), unit="models")),
    ]


def _scores(name: str, row: Row) -> Section:
    """Every model's score, and what the detector saw of target and other classes."""
    poisoned, clean = row["result"]["poisoned"], row["result"]["clean"]
    dots = [Dot(one["score"], one["suspected_class"] == one["target"]) for one in poisoned]
    figure = score_strips(dots, [Dot(one["score"], right=True) for one in clean])
    lines: list[list[Cell]] = []
    for kind in poisoned[0]["evidence"]:
        target = [one["evidence"][kind][one["target"]] for one in poisoned]
        rest = [_middle(one["evidence"][kind], one["target"]) for one in poisoned]
        harmless = [_middle(one["evidence"][kind]) for one in clean]
        lines.append([kind.replace("_", " "), _spread(target), _spread(rest), _spread(harmless)])
    columns = (
        "evidence per class",
        "target class",
        "other classes of the poisoned (median)",
        "classes of the clean (median)",
    )
    table = Table(columns, lines) if lines else None
    caption = "Every model once. Hollow: the detector named another class than the attacked one."
    return Section(name, table=table, figures=[Picture(figure, caption)])


def _middle(values: Sequence[float], without: int | None = None) -> float:
    return float(np.median([value for label, value in enumerate(values) if label != without]))


def _spread(values: Sequence[float]) -> Cell:
    """A mean over models, or one or two values themselves."""
    return mean(values) if len(values) > 2 else " and ".join(number(float(value)) for value in values)


def _rest(failed: Sequence[Row], others: Sequence[Row]) -> list[Section]:
    """Rows without a picture: games that failed, and games that this page does not know."""
    sections: list[Section] = []
    if failed:
        lines = [(_game(row), row["game"].get("seed", ""), str(row["error"]), row["address"][:12]) for row in failed]
        sections.append(Section("Failed", table=Table(("game", "seed", "message", "address"), lines)))
    if others:
        lines = [(_game(row), row["game"].get("seed", ""), row["address"][:12]) for row in others]
        text = "This page draws no other games; their rows are in rows.csv."
        sections.append(Section("Other games", text, Table(("game", "seed", "address"), lines)))
    return sections


def _settings(rows: Sequence[Row]) -> Section:
    """All settings of all games, one column per group."""
    groups: list[Group] = []
    for kind, player in (("robustness", "repairer"), ("detectability", "detector")):
        groups += group([row for row in rows if _game(row) == kind], player)
    fields = dict.fromkeys(name for one in groups for name in one.settings)
    lines = [[name, *(str(one.settings.get(name, "")) for one in groups)] for name in fields]
    return Section("All settings", table=Table(("field", *(one.label for one in groups)), lines), folded=True)


def provenance_of(rows: Sequence[Row]) -> dict[str, str]:
    """What the rows were computed with; several values where they differ."""
    seen: dict[str, dict[str, None]] = {}
    for row in rows:
        for name, value in row.get("provenance", {}).items():
            seen.setdefault(name, {})[str(value)] = None
    total = sum(float(row.get("seconds", 0)) for row in rows)
    return {**{name: ", ".join(values) for name, values in seen.items()}, "seconds": f"{total:.0f}"}
