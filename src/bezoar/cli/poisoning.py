"""`bezoar poison`, and the pictures of `bezoar show`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bezoar.cli.console import make_referee, print_json, say, stdout
from bezoar.component import build, members, override
from bezoar.data.export import Layout, write_dataset, write_overlay
from bezoar.errors import SettingError
from bezoar.games.referee import Recipe, Referee
from bezoar.models.files import save_model
from bezoar.plans import read_settings
from bezoar.records import Dataset
from bezoar.report.canvas import picture_kind, save_figure
from bezoar.report.gallery import attack_figure, trigger_figure
from bezoar.roles import (
    Architecture,
    Attack,
    CodePoisoning,
    DataPoisoning,
    DataSource,
    TargetedPoisoning,
    Trainer,
    Trigger,
)
from bezoar.rows import provenance
from bezoar.seed import Seed


def poison(
    source: str,
    attack: str,
    changes: Sequence[str],
    *,
    out: Path,
    layout: Layout | None,
    seed: int,
    data: list[Path],
    device: str,
    as_json: bool,
) -> None:
    """Let an attack poison a data set (or train a poisoned model on it) and write what it made."""
    settings = override({**demo_recipe(), "data": named_source(source), "attack": {"kind": attack}}, changes)
    player = build(Attack, settings["attack"])
    recipe = Recipe(build(Architecture, settings["architecture"]), build(Trainer, settings["trainer"]))
    dataset = build(DataSource, settings["data"])
    referee = make_referee(device, data).publishing(recipe)
    splits = referee.splits(dataset)
    facts: dict[str, Any] = {
        "attack": player.describe(),
        "data": dataset.describe(),
        "seed": seed,
        "provenance": provenance(referee.lab.device),
    }
    started = time.monotonic()
    if isinstance(player, CodePoisoning):
        if layout is not None:
            raise SettingError(f"--as: {attack!r} poisons the training code, not the data; leave --as out")
        model, memory = referee.supply(splits, player, recipe, Seed(seed))
        save_model(
            model.value,
            out / "model",
            architecture=recipe.made,
            shape=splits.value.train.shape,
            provenance={**facts, "memory": {name: tensor.tolist() for name, tensor in memory.items()}},
        )
        written: dict[str, Any] = {**facts, "model": str(out / "model")}
    else:
        if not isinstance(player, DataPoisoning):
            raise SettingError(f"--attack: {attack!r} needs targets and substitutes; play it with game: transfer")
        overlay = referee.collect(splits, player, Seed(seed)).value
        write_overlay(overlay, out, facts)
        written = {**facts, "poisons": len(overlay.rows), "boost": overlay.boost, "overlay": str(out)}
        if layout is not None:
            written["items"] = write_dataset(splits.value.train, overlay, out, layout)
    written["seconds"] = round(time.monotonic() - started, 2)
    if as_json:
        print_json(written)
    else:
        _print(written, splits.value.train, layout, out)


def _print(written: dict[str, Any], train: Dataset, layout: Layout | None, out: Path) -> None:
    if "model" in written:
        stdout.print(f"A poisoned model: {written['model']}  ({written['seconds']} s)", highlight=False)
        return
    stdout.print(
        f"{written['poisons']} of {len(train)} images poisoned: {out}  ({written['seconds']} s)", highlight=False
    )
    if layout is not None:
        stdout.print(
            f"The poisoned data set, {written['items']} images, and which of them are poisoned: "
            f"{out}/{'train' if layout == 'folder' else 'train-00000-of-00001.parquet'}, {out}/manifest.csv\n"
            "Whoever passes it on should say what it is.",
            highlight=False,
        )


def demo_recipe() -> dict[str, Any]:
    """The demo's network and recipe, which a surrogate or a supplied model is trained by unless one says otherwise."""
    settings = read_settings("demo").settings
    return {name: settings[name] for name in ("architecture", "trainer")}


def named_source(text: str) -> dict[str, Any]:
    """A registered data set by its name, or a folder of images."""
    if text in members("datasets"):
        return {"kind": text}
    if Path(text).is_dir():
        return {"kind": "folder", "path": text}
    known = ", ".join(members("datasets"))
    raise SettingError(f"DATASET: {text!r} is neither a folder of images nor a known data set; known: {known}")


def draw(name: str, family: str, target: Path, device: str) -> None:
    """Draw what an attack or a trigger does to six images of the embedded data set."""
    picture_kind(target)
    if family not in ("attacks", "triggers"):
        raise SettingError(f"--image: {name!r} is one of the {family}; pictures show attacks and triggers")
    settings = demo_recipe()
    recipe = Recipe(build(Architecture, settings["architecture"]), build(Trainer, settings["trainer"]))
    referee: Referee = make_referee(device, []).publishing(recipe)
    splits = referee.splits(build(DataSource, read_settings("demo").settings["data"]))
    if family == "attacks":
        if isinstance(build(Attack, name), TargetedPoisoning):
            raise SettingError(f"--image: {name!r} has no trigger to show; it is an attack of the transfer game")
        if build(Attack, name).wanted_model is not None:
            say("This attack needs a model of its own, which is trained once and kept ...")
        figure = attack_figure(build(Attack, name), splits, referee, recipe)
    else:
        figure = trigger_figure(build(Trigger, name), splits, referee)
    save_figure(figure, target)
    stdout.print(f"{name}: {target}", highlight=False)
