"""`bezoar certify`: which answers of a user's own model no small change of the image alters."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from bezoar.certifying import Certification
from bezoar.certifying import certify as vouch
from bezoar.cli.console import Bars, find_component, find_device, print_json, print_table, say, stdout, write_json
from bezoar.cli.owning import FAR_BELOW, Network, load_network
from bezoar.component import build, override
from bezoar.data.folder import Pictures, read_pictures
from bezoar.lab import Lab
from bezoar.records import Estimate
from bezoar.report.certifying import certify_page
from bezoar.report.radii import NORMS
from bezoar.roles import Certifier
from bezoar.rows import provenance
from bezoar.seed import Seed
from bezoar.store import put_whole, write_whole

FEW = 20
"""Images that are certified with --quick."""

COLUMNS = pa.schema(
    [
        ("file", pa.string()),
        ("label", pa.string()),
        ("predicted", pa.string()),
        ("certified", pa.bool_()),
        ("radius", pa.float64()),
        ("evidence", pa.float64()),
        ("method", pa.string()),
    ]
)
"""Of certificates.csv and certificates.parquet; empty are an unknown label, an abstention, and no method."""


@dataclass(frozen=True)
class Asked:
    """The images, whether a few of them will do, by which method, with which settings, and where the answer is put."""

    folder: Path
    quick: bool
    method: str
    changes: Sequence[str]
    out: Path | None


def certify(path: Path, network: Network, asked: Asked, *, seed: int, device: str, as_json: bool) -> None:
    """Certify the answers of a model, say how many are certified, and write every certificate."""
    certifier = build(
        Certifier, override({"kind": find_component("certifiers", asked.method).kind}, list(asked.changes))
    )
    lab = Lab(find_device(device), Bars())
    loaded = load_network(path, network, lab)
    classes = loaded.model.classes
    pictures = read_pictures(asked.folder, loaded.shape, classes)
    if asked.quick:
        pictures = pictures.take(torch.linspace(0, len(pictures) - 1, min(FEW, len(pictures))).round().long())
    found = vouch(loaded.model, pictures, certifier, lab, Seed(seed))
    _warn(found, classes)
    document: dict[str, Any] = {
        "model": str(path),
        "images": str(asked.folder),
        "certifier": certifier.describe(),
        "quick": asked.quick,
        **found.as_json(),
        "provenance": provenance(lab.device),
    }
    if asked.out is not None:
        write_json(asked.out / "result.json", document)
        _write_table(asked.out, _lines(found, pictures, asked.folder, classes))
        certify_page(
            asked.out / "report.html",
            found,
            pictures,
            classes,
            name=str(path),
            kind=certifier.kind,
            method=str(certifier),
            provenance=document["provenance"],
        )
    if as_json:
        print_json(document)
    else:
        _print(document, asked)


def _warn(found: Certification, classes: Sequence[str]) -> None:
    """Of what makes all numbers meaningless, as far as it can be seen."""
    known = found.rates.correctness
    if known is not None and known.accuracy.value < FAR_BELOW:
        say(
            f"warning: only {known.accuracy.value:.0%} of {len(found.certificates)} answers are right. Are the class "
            f"names in the order of the model's outputs ({', '.join(classes[:5])}, ...), and mean and std its own? "
            "For smoothing, was it trained with noise of the same sigma?"
        )


def _lines(
    found: Certification, pictures: Pictures, folder: Path, classes: Sequence[str]
) -> list[dict[str, str | bool | float | None]]:
    """What is said of each image."""
    certificates = found.certificates
    return [
        {
            "file": file.relative_to(folder).as_posix(),
            "label": None if found.labels is None else classes[int(found.labels[row])],
            "predicted": None if certificates.predicted[row] < 0 else classes[int(certificates.predicted[row])],
            "certified": bool(certificates.certified[row]),
            "radius": float(certificates.radius[row]),
            "evidence": float(certificates.evidence[row]),
            "method": None if certificates.method[row] < 0 else certificates.methods[int(certificates.method[row])],
        }
        for row, file in enumerate(pictures.files)
    ]


def _write_table(folder: Path, lines: list[dict[str, str | bool | float | None]]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS.names)
    writer.writeheader()
    writer.writerows(lines)
    write_whole(folder / "certificates.csv", text.getvalue())
    table = pa.Table.from_pylist(lines, schema=COLUMNS)
    put_whole(folder / "certificates.parquet", lambda place: pq.write_table(table, place))


def _print(document: dict[str, Any], asked: Asked) -> None:
    norm = NORMS[document["norm"]]
    known = document["labels"]
    shares = {"certified": document["certified"]}
    if known is not None:
        shares |= {"certified and right": known["certified_right"], "certified and wrong": known["certified_wrong"]}
    shares["no answer (abstained)"] = document["abstained"]
    if known is not None:
        shares["right, certified or not"] = known["accuracy"]
    rows = [[name, str(Estimate.from_json(share))] for name, share in shares.items()]
    rows.append(["mean radius", str(Estimate.from_json(document["mean_radius"]))])
    if known is not None:
        rows.append(["mean radius, wrong ones 0", str(Estimate.from_json(known["average_certified_radius"]))])
    title = f"{asked.method} on {document['model']}: {document['count']} images, radius {document['demanded_radius']:g}"
    print_table(f"{title} in {norm}", ["measured on the images", "share [95 % interval]"], rows)
    if asked.quick:
        stdout.print(f"--quick: at most {FEW} images, spread over the folder; it proves little.", highlight=False)
    if asked.out is not None:
        table = asked.out / "certificates.csv"
        stdout.print(f"Report: {asked.out / 'report.html'}, all images: {table}", highlight=False)
