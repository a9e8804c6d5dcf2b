"""The page of `bezoar certify`: how many answers are certified, how far, and images that are not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from bezoar.certifying import Certification
from bezoar.data.folder import Pictures
from bezoar.measure.certificates import Rates
from bezoar.records import Certificates
from bezoar.report.canvas import shortened
from bezoar.report.page import Cell, Percent, Picture, Section, Table, Tone, number, percent, write_page
from bezoar.report.radii import NORMS, radius_curves
from bezoar.report.tiles import ranked
from bezoar.report.words import intervals

SHOWN = 30
"""Pictures on the page; certificates.csv has all images."""

LONG = 50
"""Of more classes a table lists those with the smallest share."""

PROMISES = {
    "smoothing": (
        "A certificate of randomized smoothing is about the smoothed model, which answers by a vote over noisy copies "
        "of a picture: it holds for a deployment that answers in that way. Each may be wrong with the probability "
        "alpha. A model that was not trained with noise of the same sigma is often wrong under it, so few answers are "
        "certified."
    ),
    "bounds": (
        "A certificate by bounds is about the model as it is, and no matter of chance; it holds up to the rounding of "
        "floating-point numbers. An answer without certificate may be safe all the same: bounds are never exact."
    ),
}


def certify_page(
    path: Path,
    found: Certification,
    pictures: Pictures,
    classes: Sequence[str],
    *,
    name: str,
    kind: str,
    method: str,
    provenance: Mapping[str, Any],
) -> None:
    """The page of `bezoar certify`.

    Args:
        path: the HTML file.
        found: the certificates.
        pictures: what was certified, in that order.
        classes: names in label order.
        name: of the model.
        kind: of the certifier.
        method: the certifier and its settings.
        provenance: what the numbers depend on besides the settings.

    Raises:
        StoreError: the page cannot be written.
    """
    certificates, rates = found.certificates, found.rates
    norm = NORMS[certificates.norm]
    lines = {"certified": certificates.radius}
    if found.labels is not None:
        right = certificates.predicted == found.labels
        lines["certified and right"] = torch.where(right, certificates.radius, 0.0)
    within = f"within {found.demanded:.3g} in {norm}"
    write_page(
        path,
        title=f"bezoar certify of {name}",
        verdict=f"{percent(rates.certified.value)} of the answers of {name} are certified {within}",
        tone=_tone(rates),
        summary=(
            f"For {int(certificates.certified.sum())} of {len(certificates)} pictures it is proved that no change "
            f"{within} alters the answer; pixels count from 0 to 1. What is certified is the answer that the model "
            f"gives, right or wrong.\n\n{PROMISES.get(kind, '')}"
        ).strip(),
        sections=[
            Section("How many answers are certified?", f"By {method}.", _counts(found)),
            Section(
                "How large a change do they withstand?",
                figures=[
                    Picture(
                        radius_curves(lines, demanded=found.demanded, norm=certificates.norm),
                        "The share of pictures that are certified within at least each radius.",
                    )
                ],
            ),
            *_refused(found, pictures, classes),
            _per_class(found, classes),
            _words(),
            intervals("a share of pictures or models"),
        ],
        provenance=provenance,
    )


def _tone(rates: Rates) -> Tone:
    """Whether most answers are certified (and right, where that is known), as far as the interval tells."""
    share = rates.certified if rates.correctness is None else rates.correctness.right
    return "good" if share.low > 0.5 else "bad" if share.high < 0.5 else "open"


def _counts(found: Certification) -> Table:
    """Shares, of which those with labels are left out where there are none."""
    rates, known = found.rates, found.rates.correctness
    rows: list[tuple[str, Cell]] = [("certified", Percent(rates.certified))]
    if known is not None:
        rows += [("certified and right", Percent(known.right)), ("certified and wrong", Percent(known.wrong))]
    rows.append(("no answer (abstained)", Percent(rates.abstained)))
    if known is not None:
        rows.append(("right, certified or not", Percent(known.accuracy)))
    rows.append(("mean radius", rates.mean_radius))
    if known is not None:
        rows.append(("mean radius, wrong answers counting 0", known.average_radius))
    return Table(("measured on the pictures", "value"), rows, frozenset({0}))


def _refused(found: Certification, pictures: Pictures, classes: Sequence[str]) -> list[Section]:
    """The pictures with the smallest radius, as far as they are not certified."""
    certificates = found.certificates
    order = certificates.radius.argsort(stable=True)
    rows = order[~certificates.certified[order]]
    title = "Which pictures are not certified?"
    if not len(rows):
        return [Section(title, "All are.")]
    shown = rows[:SHOWN]
    titles = [_answer(certificates, row, classes) for row in shown.tolist()]
    below = [f"{_label(found, row, classes)}{number(float(certificates.radius[row]))}" for row in shown.tolist()]
    caption = "The answer above; below, the true class where it is known, and the radius. The smallest radius first."
    text = f"{len(shown)} of {len(rows)} such pictures; all are in certificates.csv."
    return [Section(title, text, figures=[Picture(ranked(pictures.reader(shown), titles, below), caption)])]


def _answer(certificates: Certificates, row: int, classes: Sequence[str]) -> str:
    label = int(certificates.predicted[row])
    return "no answer" if label < 0 else classes[label]


def _label(found: Certification, row: int, classes: Sequence[str]) -> str:
    return "" if found.labels is None else f"{shortened(classes[int(found.labels[row])], 8)}: "


def _per_class(found: Certification, classes: Sequence[str]) -> Section:
    """By true class where labels are known, else by answer; the least certified first."""
    certificates = found.certificates
    of = certificates.predicted if found.labels is None else found.labels
    count = len(classes)
    images, certified = (of[part & (of >= 0)].bincount(minlength=count) for part in (of >= 0, certificates.certified))
    total = torch.zeros(count, dtype=torch.float64).index_add(0, of[of >= 0], certificates.radius[of >= 0].double())
    share = certified / images.clamp_min(1)
    there = [label for label in share.argsort(stable=True).tolist() if images[label]]
    rows: list[list[Cell]] = [
        [str(classes[label]), int(images[label]), int(certified[label]), float(total[label] / images[label])]
        for label in there[:LONG]
    ]
    text = f"By {'answer' if found.labels is None else 'true class'}, those with the smallest certified share first."
    return Section("Class by class", text, Table(("class", "pictures", "certified", "mean radius"), rows), folded=True)


def _words() -> Section:
    rows = [
        ("certificate", "A proof that no change of one picture within a radius alters the answer to it."),
        ("radius", "How large such a change may be: the root of the sum of its squares (L2), or any pixel's (L∞)."),
        ("certified", "Vouched for within the demanded radius."),
        ("no answer", "The certifier cannot tell which class would win, so a deployment has to ask something else."),
    ]
    return Section("What do these words mean?", table=Table(("word", "meaning"), rows))
