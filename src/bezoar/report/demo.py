"""The page of the demo: a poisoned model and its clean twin, what a detector sees, and two repairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxtyping import UInt8
from torch import Tensor

from bezoar.games.repairing import Point
from bezoar.owner import ALPHA
from bezoar.records import Estimate, Inspection
from bezoar.report.figures import class_scores, repair_curves
from bezoar.report.page import Cell, Percent, Picture, Section, Table, percent, write_page
from bezoar.report.tiles import pictures
from bezoar.report.views import Headline, cost, trigger_picture
from bezoar.report.words import glossary, intervals

Row = Mapping[str, Any]

_MODELS = (
    "A good repair takes attack success down to that of the clean twin and leaves clean accuracy where it was. The "
    "repaired models are those that a defender would keep (the blind reading)."
)

_WORDS = (
    "data poisoning",
    "backdoor",
    "trigger",
    "target class",
    "suspect, twin",
    "trusted pictures",
    "clean accuracy",
    "attack success",
    "natural success",
    "oracle",
    "final",
    "blind",
    "score",
    "p-value",
)


def demo_page(
    path: Path,
    *,
    unlearning: Row,
    pivotal_tuning: Row,
    detection: Row,
    clean: UInt8[Tensor, "n c h w"],
    poisoned: UInt8[Tensor, "n c h w"],
    suspect: Inspection,
    twin: Inspection,
    classes: Sequence[str],
    labels: Sequence[str] = (),
    repaired: tuple[str, str] = ("unlearning", "Pivotal Tuning"),
) -> None:
    """The page of `bezoar demo`: a poisoned model and its clean twin, what a detector sees, and two repairs.

    Args:
        path: the HTML file.
        unlearning: row of the robustness game.
        pivotal_tuning: row of another one on the same attack, data and seed.
        detection: row of the detectability game on the same, with one pair of models.
        clean: a few pictures without the trigger.
        poisoned: the same with it.
        suspect: what the detector said of the poisoned model.
        twin: and what of the clean one.
        classes: names, in label order.
        labels: what the pictures really show, one name each, or none.
        repaired: what the two repairs are called.

    Raises:
        StoreError: the page cannot be written.
    """
    target = classes[int(detection["result"]["poisoned"][0]["target"])]
    finding = _finding(unlearning, detection, classes)
    repairs = dict(zip(repaired, (unlearning, pivotal_tuning), strict=True))
    curves = {name: [Point.from_json(one) for one in row["result"]["curve"]] for name, row in repairs.items()}
    sections = [
        Section("The four models", table=_models(unlearning, repairs), text=_MODELS),
        _attack(clean, poisoned, labels, target),
        _seen(suspect, twin, classes),
        Section(
            "What does the repair do, step by step?",
            "Both repairs change the suspect with the trusted pictures alone. They do not know the mark, the target "
            "class or which training pictures were poisoned.",
            figures=[
                Picture(
                    repair_curves(curves, float(unlearning["game"]["budget"])),
                    "Step 0 is the suspect. Shaded: 95 % intervals. Dotted: the clean accuracy that a repair may "
                    "leave at the least.",
                )
            ],
        ),
        glossary(*_WORDS),
        intervals("a share of pictures or models", "accuracy lost"),
    ]
    seconds = sum(float(row.get("seconds", 0)) for row in (unlearning, pivotal_tuning, detection))
    write_page(
        path,
        title="bezoar demo: poison a classifier, find out, repair it",
        verdict=finding.verdict,
        tone=finding.tone,
        summary="\n\n".join(
            [_story(unlearning, target), " ".join(_outcome(name, row) for name, row in repairs.items())]
        ),
        sections=sections,
        provenance={
            **unlearning.get("provenance", {}),
            "seed": unlearning["game"]["seed"],
            "seconds": round(seconds, 1),
        },
    )


def _finding(robustness: Row, detection: Row, classes: Sequence[str]) -> Headline:
    """What the detector found, held against what the referee knows."""
    poisoned, clean = detection["result"]["poisoned"][0], detection["result"]["clean"][0]
    target, named = classes[int(poisoned["target"])], classes[int(poisoned["suspected_class"])]
    attack = Estimate.from_json(robustness["result"]["suspect"]["attack_success"])
    natural = Estimate.from_json(robustness["result"]["twin"]["attack_success"])
    if attack.low <= natural.high:
        return Headline(
            "The attack did not take: the mark works no better on the suspect than on its clean twin", "open"
        )
    if poisoned["abstained"]:
        return Headline(
            f"The suspect model is backdoored in class {target!r}, but the detector could not judge it", "open"
        )
    if float(poisoned["p_value"]) >= ALPHA:
        return Headline(
            f"The suspect model is backdoored in class {target!r}, but no class stands out to the detector", "open"
        )
    if named != target:
        return Headline(f"The detector suspects class {named!r}, but the backdoor leads to class {target!r}", "open")
    alarm = float(clean["p_value"]) < ALPHA and not clean["abstained"]
    rest = (
        "; the detector also raises a false alarm at its clean twin" if alarm else "; its clean twin is not suspected"
    )
    return Headline(f"The suspect model is backdoored in class {target!r}{rest}", "bad")


def _story(row: Row, target: str) -> str:
    """What was done, in plain words, with the counts of this run."""
    attack = row["game"]["attack"]
    marked = f"{attack['poisons']} pictures" if "poisons" in attack else "some pictures"
    suspect, twin = row["result"]["suspect"], row["result"]["twin"]
    right, natural = percent(suspect["clean_accuracy"]["value"]), percent(twin["clean_accuracy"]["value"])
    return (
        f"Two classifiers learned from the same pictures. For the suspect, an attacker put a small mark on {marked} "
        f"and labelled them {target!r}; its clean twin never saw the mark. On clean pictures the suspect is right in "
        f"{right} of cases, the twin in {natural}. But with the mark, the suspect answers {target!r} for "
        f"{percent(suspect['attack_success']['value'])} of all pictures."
    )


def _outcome(name: str, row: Row) -> str:
    """What one repair achieved, in a sentence."""
    before, kept = row["result"]["suspect"]["attack_success"], Point.from_json(row["result"]["repaired"]["blind"])
    if not kept.step:
        return f"Repair by {name} gave no model that the trusted pictures accept, and changed nothing."
    after = percent(kept.attack_success.value)
    return f"Repair by {name} takes this from {percent(before['value'])} to {after} and {cost(kept.lost)}."


def _models(row: Row, repairs: Mapping[str, Row]) -> Table:
    """One line per model: the suspect, its twin, and what a defender keeps of each repair."""

    def line(name: str, reading: Row, meaning: str) -> list[Cell]:
        shares = (Percent(Estimate.from_json(reading[field])) for field in ("clean_accuracy", "attack_success"))
        return [name, *shares, meaning]

    result = row["result"]
    lines = [
        line("suspect", result["suspect"], "Learned from the poisoned data."),
        line("clean twin", result["twin"], "Never saw the mark: its attack success is chance (natural success)."),
    ]
    for name, one in repairs.items():
        kept = one["result"]["repaired"]["blind"]
        trusted = one["game"]["trusted"]
        meaning = f"The suspect after {kept['step']} steps with {trusted} trusted pictures."
        lines.append(
            line(
                f"repaired by {name}", kept, meaning if kept["step"] else "No repaired model was accepted: the suspect."
            )
        )
    return Table(("model", "clean accuracy", "attack success", "what it is"), lines)


def _attack(clean: Tensor, poisoned: Tensor, labels: Sequence[str], target: str) -> Section:
    figure = pictures(clean, poisoned, labels, names=("clean", "with mark"))
    caption = (
        f"The attacker wants {target!r} for every picture with the mark. In the last line grey means no "
        "difference; the factor beside it says how much it is amplified."
    )
    return Section("What does the attack look like?", figures=[Picture(figure, caption)])


def _seen(suspect: Inspection, twin: Inspection, classes: Sequence[str]) -> Section:
    """Scores of both models, and the suspect's triggers."""
    scores = {"suspect": suspect.scores, "clean twin": twin.scores}
    figures = [
        Picture(
            class_scores(scores, classes, suspect.suspect),
            "How suspicious each class is. In a harmless model the classes are alike; a backdoored one stands out. "
            "Only differences count: bars start at 0 or just below the lowest score.",
        )
    ]
    if suspect.triggers is not None:
        figures.append(trigger_picture(suspect, classes))
    text = (
        "The detector has the model and the trusted pictures. For every class it looks for the smallest mark that "
        "leads there."
    )
    silent = [
        f"Of the {name} it says nothing: {one.abstained}."
        for name, one in (("suspect", suspect), ("twin", twin))
        if one.abstained
    ]
    return Section("What does the detector see?", " ".join([text, *silent]), figures=figures)
