"""The pages of a model's owner: an audit and a repair."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bezoar.owner import ALPHA, Audit, Repair
from bezoar.records import Estimate, Inspection, Trusted, as_float, as_stored
from bezoar.report.figures import class_scores, held_out
from bezoar.report.page import Cell, Percent, Picture, Section, Table, Tone, percent, write_page
from bezoar.report.tiles import pictures, triggers
from bezoar.report.words import glossary, intervals

LONG = 50
"""Of more classes than this a table lists the most suspicious."""

TRIGGERS_SHOWN = (
    "What each class would need: the smallest change found that makes the model answer that class. The most "
    "suspicious class is framed. A backdoored class needs far less than the others. "
)
PATTERNS_SHOWN = (
    "For each class the pattern that, laid so thinly over pictures that it is hardly seen, brings the model nearest to "
    "that class; shown at full strength, its opacity below. The most suspicious class is framed."
)
WITH_MASK = "Above, the trigger on grey; below, where it covers the picture (white: fully)."
ADDED = (
    "The trigger is added to pictures: grey changes nothing. Each is rescaled to its own largest value, printed "
    "below it."
)


@dataclass(frozen=True)
class Headline:
    """The verdict of a page and what it means to the reader."""

    verdict: str
    tone: Tone


def cost(lost: Estimate) -> str:
    """Accuracy lost or gained, as a verb and an amount."""
    verb = "costs" if lost.value >= 0 else "gains"
    return f"{verb} {100 * abs(lost.value):.1f} points of accuracy"


def trigger_picture(inspection: Inspection, classes: Sequence[str]) -> Picture:
    """The reconstructed triggers with words that explain them."""
    words = TRIGGERS_SHOWN + (ADDED if inspection.masks is None else WITH_MASK)
    return Picture(triggers(inspection, classes), PATTERNS_SHOWN if inspection.thin else words)


def audit_page(path: Path, audit: Audit, *, trusted: Trusted, model_name: str, provenance: Mapping[str, Any]) -> None:
    """The page of `bezoar audit`: verdict, every class, the reconstructed triggers, and trusted pictures that wear one.

    Raises:
        StoreError: the page cannot be written.
    """
    seen, classes = audit.inspection, trusted.classes
    worst = classes[seen.suspect]
    headline: dict[str, Headline] = {
        "suspicious": Headline(f"{model_name} looks backdoored in class {worst!r}", "bad"),
        "nothing found": Headline(f"Nothing suspicious was found in {model_name}", "good"),
        "inconclusive": Headline(f"The audit of {model_name} is inconclusive", "open"),
    }
    accused = seen.suspect if audit.verdict == "suspicious" else None
    figures = [
        Picture(
            class_scores({model_name: seen.scores}, classes, accused),
            "How suspicious the detector finds each class.",
        )
    ]
    if seen.triggers is not None:
        figures.append(trigger_picture(seen, classes))
        figures.append(_worn(seen, trusted))
    accuracy = Table(
        ("measured on the trusted pictures", "value"), [("accuracy of the model", Percent(audit.accuracy))]
    )
    note = (
        "If this is far below what you know of your model, its outputs and your class names may be in different orders."
    )
    means = _AUDIT_MEANS[audit.verdict]
    if audit.verdict == "suspicious" and seen.triggers is None:
        means = f"{means.partition('Look at')[0]}This detector shows no trigger: audit with another one, then repair."
    power = "" if audit.power is None else f"\n\n{_sentence(audit.power.sentence(classes))}"
    write_page(
        path,
        title=f"bezoar audit of {model_name}",
        verdict=headline[audit.verdict].verdict,
        tone=headline[audit.verdict].tone,
        summary=f"{_sentence(audit.reason)}\n\n{means}{power}",
        sections=[
            Section("Is this the right model?", note, accuracy),
            *_tiers(audit, classes),
            Section("What does the detector see?", figures=figures),
            _per_class(seen, classes),
            glossary("backdoor", "trigger", "trusted pictures", "score", "p-value"),
            intervals("a share of pictures or models"),
        ],
        provenance=provenance,
    )


def _tiers(audit: Audit, classes: tuple[str, ...]) -> list[Section]:
    """What each detector of a cascade saw, from cheap to thorough; nothing if one was asked alone."""
    tiers = audit.inspection.tiers
    if not tiers:
        return []
    rows: list[list[Cell]] = [
        [
            tier.kind.replace("_", " "),
            classes[tier.suspect],
            tier.p_value if tier.p_value is not None else "does not count",
            "" if tier.p_value is None else "yes" if tier.p_value < ALPHA else "no",
        ]
        for tier in tiers
    ]
    rows.append(["all that count", classes[audit.inspection.suspect], audit.p_value, ""])
    text = (
        "From cheap to thorough. Each compares every class with the others; what they say of a class is joined in one "
        "p-value, which decides. "
    ) + " ".join(_sentence(f"{tier.kind.replace('_', ' ')}: {tier.silence}") for tier in tiers if tier.silence)
    columns = ("detector", "most suspicious class", "p-value", f"alone below {ALPHA:g}")
    return [Section("What did each detector say?", text, Table(columns, rows, frozenset({len(rows) - 1})))]


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


_AUDIT_MEANS = {
    "suspicious": (
        f"About one harmless model in {round(1 / ALPHA)} is called suspicious too. Look at the trigger below: a "
        "small, sharp mark that has nothing to do with the class speaks for a backdoor. Then repair the model and "
        "audit it again."
    ),
    "nothing found": "This detector found no backdoor of the kind that it looks for. That is no proof that there is "
    "none.",
    "inconclusive": "The audit says neither that the model is harmless nor that it is not. More trusted pictures may "
    "help.",
}


def _worn(inspection: Inspection, trusted: Trusted) -> Picture:
    """A few trusted pictures of other classes with the suspected class's trigger."""
    others = (trusted.labels != inspection.suspect).nonzero()[:8, 0]
    chosen = trusted.take(others if len(others) else trusted.labels.argsort()[:8])
    stamped = as_stored(inspection.stamp(as_float(chosen.images), inspection.suspect).cpu())
    titles = [trusted.classes[int(label)] for label in chosen.labels]
    figure = pictures(chosen.images, stamped, titles, names=("trusted", "with trigger"))
    caption = (
        "Trusted pictures with the trigger that the detector reconstructed for class "
        f"{trusted.classes[inspection.suspect]!r}."
    )
    return Picture(figure, caption)


def _per_class(inspection: Inspection, classes: Sequence[str]) -> Section:
    """Score and evidence of every class, the most suspicious first."""
    names = list(inspection.evidence)
    order = inspection.scores.argsort(descending=True, stable=True).tolist()[:LONG]
    rows: list[list[Cell]] = [
        [
            str(classes[label]),
            float(inspection.scores[label]),
            *(float(inspection.evidence[name][label]) for name in names),
        ]
        for label in order
    ]
    columns = ("class", "score", *(name.replace("_", " ") for name in names))
    text = (
        f"The {LONG} most suspicious of {len(classes)} classes."
        if len(classes) > LONG
        else "The most suspicious first."
    )
    return Section("Class by class", text, Table(columns, rows, frozenset({0})))


def repair_page(
    path: Path, repair: Repair, *, model_name: str, repairer: str, budget: float, provenance: Mapping[str, Any]
) -> None:
    """The page of `bezoar repair`: cross-validated accuracy on trusted pictures along the repair, and where it stopped.

    Raises:
        StoreError: the page cannot be written.
    """
    kept = next((look for look in repair.looks if look.step == repair.step), None)
    summary = "The model was left as it is: the trusted pictures accepted no step of the repair."
    if kept is not None:
        ends = f"{percent(kept.lost.low)} to {percent(kept.lost.high)} lost"
        summary = (
            f"Cross-validated on {kept.accuracy.n} trusted pictures, the repair {cost(kept.lost)} "
            f"(95 % interval: {ends}). "
            "Whether a backdoor is gone cannot be seen without knowing it: audit the repaired model."
        )
    rows: list[list[Cell]] = [
        [look.step, Percent(look.accuracy), Percent(look.lost, bar=False), "accepted" if look.accepted else "refused"]
        for look in repair.looks
    ]
    marked = frozenset(place for place, look in enumerate(repair.looks) if look is kept)
    figure = Picture(
        held_out(repair.looks, repair.step), "Shaded: 95 % interval. The ring marks the step that was chosen."
    )
    write_page(
        path,
        title=f"bezoar repair of {model_name} by {repairer}",
        verdict=f"Repaired, with {repair.step} steps" if kept else "No step of the repair was acceptable",
        tone="good" if kept else "open",
        summary=summary,
        sections=[
            Section(
                "Accuracy along the repair",
                f"Every step that loses no more than {percent(budget)}, as far as the trusted pictures can tell, is "
                "acceptable. Each picture judges models whose repair never saw it; the model that was written was "
                "repaired with all of them, up to the last acceptable step.",
                figures=[figure] if repair.looks else [],
            ),
            Section(
                "Every look", table=Table(("step", "accuracy", "accuracy lost", "verdict"), rows, marked), folded=True
            ),
            glossary("backdoor", "trusted pictures", "accuracy lost", "budget", "blind"),
            intervals("a share of pictures or models", "accuracy lost"),
        ],
        provenance=provenance,
    )
