"""`bezoar demo`: three games with one seed, and a page that shows them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from PIL import Image

from bezoar.cli.console import make_referee, print_json, print_table, say, stdout, write_json
from bezoar.errors import StoreError
from bezoar.games.detectability import Detectability
from bezoar.games.referee import Referee
from bezoar.models.files import save_model
from bezoar.plans import read_game
from bezoar.records import Estimate, Trusted
from bezoar.report.demo import demo_page
from bezoar.roles import DataPoisoning
from bezoar.seed import Seed
from bezoar.sweep import play

_SMALL = ["data.train=3200", "data.test=500", "trainer.epochs=5", "trusted=200"]

QUICK = {
    "detection": _SMALL,
    "unlearning": [*_SMALL, "repairer.steps=40"],
    "pivotal_tuning": [*_SMALL, "repairer.steps=20"],
}
"""Overrides of ``--quick`` for each game: enough to see every stage, too little to prove anything."""


def demo(out: Path, seed: int, *, quick: bool, device: str, as_json: bool) -> None:
    """Play detection, unlearning and Pivotal Tuning on one pair of twins, and write the report."""
    started = time.monotonic()
    referee = make_referee(device, [])
    games = {
        name: read_game("demo", preset=name, changes=[f"seed={seed}", *(changes if quick else ())])
        for name, changes in QUICK.items()
    }
    say("Training a poisoned model and its clean twin, then asking the detector about both ...")
    rows = {"detection": play(games["detection"], referee)}
    say("Repairing the suspect with what the detector found ...")
    rows["unlearning"] = play(games["unlearning"], referee)
    say("Repairing it once more, with Pivotal Tuning ...")
    rows["pivotal_tuning"] = play(games["pivotal_tuning"], referee)
    game = games["detection"]
    assert isinstance(game, Detectability)
    document = _document(rows, game.detector.kind, round(time.monotonic() - started, 1))
    _write(out, referee, game, rows, document)
    if as_json:
        print_json(document)
    else:
        _print(document, game, out)


def _document(rows: dict[str, dict[str, Any]], detector: str, seconds: float) -> dict[str, Any]:
    """What ``--json`` prints: the numbers of the table and the detector's answer."""
    result = rows["unlearning"]["result"]
    poisoned, clean = (rows["detection"]["result"][name][0] for name in ("poisoned", "clean"))
    repairs = {name: rows[name]["result"]["repaired"]["blind"] for name in ("unlearning", "pivotal_tuning")}
    return {
        "suspect": result["suspect"],
        "twin": result["twin"],
        "repaired": {name: repairs["unlearning"][name] for name in ("clean_accuracy", "attack_success", "lost")},
        "repairs": repairs,
        "detection": {
            "detector": detector,
            "suspect_score": poisoned["score"],
            "twin_score": clean["score"],
            "suspect_p_value": poisoned["p_value"],
            "twin_p_value": clean["p_value"],
            "suspected_class": poisoned["suspected_class"],
            "target_class": poisoned["target"],
        },
        "seconds": seconds,
    }


def _print(document: dict[str, Any], game: Detectability, out: Path) -> None:
    shown = {
        "poisoned model": document["suspect"],
        "its clean twin": document["twin"],
        "repaired: unlearning": document["repairs"]["unlearning"],
        "repaired: Pivotal Tuning": document["repairs"]["pivotal_tuning"],
    }
    rows = [
        [name, *(str(Estimate.from_json(reading[column])) for column in ("clean_accuracy", "attack_success"))]
        for name, reading in shown.items()
    ]
    print_table("bezoar demo", ["model", "clean accuracy", "attack success"], rows)
    found = document["detection"]
    stdout.print(
        f"{found['detector']} suspects class {found['suspected_class']} of the poisoned model "
        f"(p = {found['suspect_p_value']:.2g}; on the clean twin p = {found['twin_p_value']:.2g}); "
        f"the attacker's class was {found['target_class']}.",
        highlight=False,
    )
    stdout.print(
        f"Report: {out / 'report.html'}   ({document['seconds']:.0f} s, seed {game.seed})\n"
        f"Now as its owner:  bezoar audit {out / 'suspect'} --trusted {out / 'trusted'}\n"
        f"                   bezoar repair {out / 'suspect'} --trusted {out / 'trusted'} --out {out / 'repaired'}",
        highlight=False,
        soft_wrap=True,
    )


def _write(
    out: Path, referee: Referee, game: Detectability, rows: dict[str, dict[str, Any]], document: dict[str, Any]
) -> None:
    """The report, the rows, and what an owner would hold: the suspect model and the trusted images."""
    seed = Seed(game.seed)
    deal = game.deal(referee, seed)
    data = deal.data
    assert isinstance(game.attack, DataPoisoning)
    poison = referee.collect(data, game.attack, seed)
    suspect = referee.train(data, poison, game.recipe, seed)
    twin = referee.train(data, None, game.recipe, seed)
    inspections = [referee.inspect(model, game.detector, deal.trusted, seed).value for model in (suspect, twin)]
    write_json(out / "result.json", {**document, "rows": list(rows.values())})
    save_model(
        suspect.value,
        out / "suspect",
        architecture=game.recipe.made,
        shape=data.value.train.shape,
        provenance={"made_by": "bezoar demo", "seed": game.seed, "poisoned": True},
    )
    write_images(deal.trusted.value, out / "trusted")
    shown = poison.value.rows[:8]
    train = data.value.train
    demo_page(
        out / "report.html",
        unlearning=rows["unlearning"],
        pivotal_tuning=rows["pivotal_tuning"],
        detection=rows["detection"],
        clean=train.batch(shown),
        poisoned=poison.value.images[:8],
        suspect=inspections[0],
        twin=inspections[1],
        classes=train.classes,
        labels=[train.classes[int(label)] for label in train.labels[shown]],
    )


def write_images(trusted: Trusted, folder: Path) -> None:
    """One folder of PNG files per class."""
    try:
        for number, (pixels, label) in enumerate(zip(trusted.images, trusted.labels, strict=True)):
            path = folder / trusted.classes[int(label)] / f"{number:04d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(path)
    except OSError as error:
        raise StoreError(f"cannot write images to {folder}: {error.strerror}; name another folder with --out") from None
