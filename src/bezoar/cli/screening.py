"""`bezoar screen`: the rows of scraped data, ranked by how suspicious they are."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bezoar.cli.console import find_component, make_referee, print_json, print_table, say, stdout, write_json
from bezoar.cli.owning import FAR_BELOW, Network, load_network
from bezoar.cli.poisoning import demo_recipe, named_source
from bezoar.component import build, digest, override
from bezoar.data.export import copy_chosen, require_free, write_chosen
from bezoar.data.folder import Folder, image_files, read_folder
from bezoar.errors import SettingError
from bezoar.games.referee import Made, Recipe, Referee
from bezoar.games.sanitizing import how_many
from bezoar.measure.predictions import clean_accuracy
from bezoar.models.classifier import Classifier
from bezoar.records import Dataset, Estimate
from bezoar.report.screening import screen_page
from bezoar.roles import Architecture, DataSource, Sanitizer, Splits, Trainer
from bezoar.rows import provenance
from bezoar.screening import Screening, joined
from bezoar.screening import screen as find
from bezoar.seed import Seed
from bezoar.store import write_whole

LISTED = 10
"""Rows that are printed; the manifest has all."""


@dataclass(frozen=True)
class Wanted:
    """What is asked: by which method, how many rows are named, and where what is found is written."""

    method: str
    removed: float
    clean_copy: Path | None
    out: Path | None


@dataclass(frozen=True)
class Own:
    """A user's own model of the data, and how its network is described."""

    path: Path
    network: Network


@dataclass(frozen=True)
class Scraped:
    """The rows that are screened, and where they come from.

    Attributes:
        data: images and labels.
        address: changes with the files.
        root: the folder that holds a folder for each class; None for data that are no such folder.
        files: of the rows, in order; empty without a root.
    """

    data: Dataset
    address: str
    root: Path | None
    files: Sequence[Path]


def screen(
    source: str,
    folder: Path | None,
    wanted: Wanted,
    own: Own | None,
    changes: Sequence[str],
    *,
    seed: int,
    device: str,
    as_json: bool,
) -> bool:
    """Rank the rows of a data set, say what was found and write it; True if it is suspicious."""
    find_component("sanitizers", wanted.method)
    settings = override({**demo_recipe(), "data": named_source(source), "sanitizer": {"kind": wanted.method}}, changes)
    sanitizer = build(Sanitizer, settings["sanitizer"])
    if not 0 < wanted.removed < 1:
        raise SettingError(f"--remove: {wanted.removed:g} is no share of the rows; it lies between 0 and 1, e.g. 0.05")
    if wanted.clean_copy is not None:
        require_free(wanted.clean_copy)
    referee = make_referee(device, [])
    recipe = Recipe(build(Architecture, settings["architecture"]), build(Trainer, settings["trainer"]))
    loaded = None
    if own is not None:  # the size of the images is a setting of the data
        loaded = load_network(own.path, replace(own.network, size=settings["data"].get("size")), referee.lab)
    if loaded is not None and settings["data"]["kind"] == Folder.kind:
        settings["data"]["size"] = loaded.shape[1]
    classes = None if loaded is None else loaded.model.classes
    rows = _rows(build(DataSource, settings["data"]), referee, classes)
    if loaded is not None and (loaded.shape != rows.data.shape or loaded.model.classes != rows.data.classes):
        raise SettingError(f"--model: {own.path if own else ''} takes other images or classes than {source} has")
    trusted = None if folder is None else read_folder(folder, rows.data.shape[1], rows.data.classes)
    how_many(wanted.removed, len(rows.data) + (0 if trusted is None else len(trusted)), name="--remove")
    victim = _train(rows, trusted, folder, recipe, referee, Seed(seed)) if loaded is None else loaded.model
    found = find(victim, rows.data, trusted, sanitizer, referee.lab, Seed(seed), removed=wanted.removed)
    accuracy = clean_accuracy(victim, rows.data)
    if accuracy.value < FAR_BELOW:
        say(
            f"warning: the model is right on only {accuracy.value:.0%} of the rows, so its features say little; "
            "train longer (trainer.epochs=30) or give your own --model"
        )
    document: dict[str, Any] = {
        "dataset": source,
        "sanitizer": sanitizer.describe(),
        "model": str(own.path) if own is not None else recipe.identity(),
        **found.as_json(),
        "accuracy_on_rows": accuracy.as_json(),
        "named": [_line(found, rows, rank) for rank in range(int(found.removed.sum()))],
        "clean_copy": None if wanted.clean_copy is None else str(wanted.clean_copy),
        "provenance": provenance(referee.lab.device),
    }
    _write(document, found, rows, wanted, str(sanitizer), accuracy)
    if as_json:
        print_json(document)
    else:
        _print(document, wanted)
    return found.verdict == "suspicious"


def _rows(source: DataSource, referee: Referee, classes: tuple[str, ...] | None) -> Scraped:
    """All rows of a folder of classes, or those that a data set is there to train on."""
    if not isinstance(source, Folder):
        made = referee.splits(source)
        return Scraped(made.value.train, made.address, None, ())
    root = Path(source.path).expanduser()
    root = root / "train" if (root / "train").is_dir() else root
    address = digest({"folder": str(root.resolve()), "size": source.size, "files": referee.fingerprint(source)})
    return Scraped(read_folder(root, source.size, classes), address, root, image_files(root))


def _train(
    rows: Scraped, trusted: Dataset | None, folder: Path | None, recipe: Recipe, referee: Referee, seed: Seed
) -> Classifier:
    """A model of the rows and of the trusted ones, which are to be no strangers to it; kept for other methods."""
    data, address = rows.data, rows.address
    if trusted is not None and folder is not None:
        data = joined(data, trusted)
        address = digest({"rows": address, "trusted": Folder(path=str(folder)).fingerprint(())})
    return referee.train(Made(Splits(data, data), address), None, recipe, seed / "screen").value


def _line(found: Screening, rows: Scraped, rank: int) -> dict[str, Any]:
    """What is said of one row."""
    row = int(found.order[rank])
    return {
        "row": row,
        "class": rows.data.classes[int(rows.data.labels[row])],
        "file": str(rows.files[row]) if rows.files else "",
        "score": float(found.scores[row]),
        "rank": rank + 1,
        "removed": bool(found.removed[row]),
    }


def _manifest(found: Screening, rows: Scraped) -> str:
    """All rows as CSV, the most suspicious first."""
    table = io.StringIO()
    writer = csv.DictWriter(table, ["row", "class", "file", "score", "rank", "removed"])
    writer.writeheader()
    writer.writerows(_line(found, rows, rank) for rank in range(len(found.order)))
    return table.getvalue()


def _write(
    document: dict[str, Any], found: Screening, rows: Scraped, wanted: Wanted, method: str, accuracy: Estimate
) -> None:
    """The clean copy, and what goes into the folder of the results, as far as they are wanted."""
    if wanted.clean_copy is not None:
        _copy(found, rows, wanted.clean_copy)
    if wanted.out is None:
        return
    write_json(wanted.out / "result.json", document)
    write_whole(wanted.out / "manifest.csv", _manifest(found, rows))
    screen_page(
        wanted.out / "report.html",
        found,
        rows.data,
        name=document["dataset"],
        method=method,
        accuracy=accuracy,
        provenance=document["provenance"],
    )


def _copy(found: Screening, rows: Scraped, folder: Path) -> None:
    """The rows that are left: a user's own files as they are, others as PNG files."""
    kept = (~found.removed).nonzero()[:, 0]
    if rows.root is None:
        write_chosen(rows.data, kept, folder)
    else:
        copy_chosen([rows.files[row] for row in kept.tolist()], rows.root, folder)


def _print(document: dict[str, Any], wanted: Wanted) -> None:
    lines = [
        [str(each["rank"]), str(each["row"]), each["class"], f"{each['score']:.3g}", each["file"]]
        for each in document["named"][:LISTED]
    ]
    title = f"{wanted.method} on {document['dataset']}: {document['removed']} of {document['rows']} rows named"
    print_table(title, ["rank", "row", "class", "score", "file"], lines)
    stdout.print(f"{document['verdict'].upper()}: {document['reason']}", highlight=False)
    if wanted.clean_copy is not None:
        stdout.print(f"The rows that are left: {wanted.clean_copy}", highlight=False)
    if wanted.out is not None:
        stdout.print(f"Report: {wanted.out / 'report.html'}, all rows: {wanted.out / 'manifest.csv'}", highlight=False)
