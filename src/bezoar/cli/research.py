"""`bezoar run`, `tune`, `list`, `show` and `check`."""

from __future__ import annotations

import inspect
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic_core import PydanticUndefined

from bezoar.cli.console import find_component, make_referee, print_json, print_table, stdout, write_json
from bezoar.cli.poisoning import draw
from bezoar.cli.scoreboard import title
from bezoar.component import Component, families, members, plain
from bezoar.errors import SettingError, known
from bezoar.games.repairing import Point
from bezoar.games.robustness import Robustness
from bezoar.plans import plan, read_game, read_settings
from bezoar.records import Estimate
from bezoar.report.canvas import save_figure
from bezoar.report.results import results_page
from bezoar.report.trials import trial_chart
from bezoar.sweep import play, resolve
from bezoar.testing import check as hold_to_tests
from bezoar.tuning import tuned


def run(
    source: str,
    changes: Sequence[str],
    *,
    preset: str | None,
    out: Path | None,
    data: list[Path],
    device: str,
    as_json: bool,
) -> None:
    """Play one game, print its row, and write it with a page if there is a folder for them."""
    referee = make_referee(device, data)
    wanted = read_settings(source, preset).tuned
    resolved = resolve([read_game(source, preset=preset, changes=changes)], wanted, referee)
    row = resolved.told(play(resolved.games[0], referee), 0)
    if out is not None:
        write_json(out / "result.json", row)
        results_page(out / "report.html", [row])
    if as_json:
        print_json(row)
    else:
        _print_row(row)


def tune(
    source: str,
    changes: Sequence[str],
    *,
    trials: int,
    folds: int,
    preset: str | None,
    out: Path | None,
    data: list[Path],
    device: str,
    as_json: bool,
) -> None:
    """Search settings of a game's repairer, and print every trial and the winner."""
    game = plan(read_settings(source, preset), changes)[0]  # what a grid varies a search does not see
    if not isinstance(game, Robustness):
        raise SettingError(f"{source}: a {game.kind} game has no repairer to tune; use one of 'robustness'")
    found = tuned(game, make_referee(device, data), trials=trials, folds=folds)
    if out is not None:
        write_json(out / "result.json", found.as_json())
        save_figure(trial_chart(found), out / "trials.png")
    if as_json:
        print_json(found.as_json())
        return
    names = list(found.winner.settings)
    rows = [
        [
            f"{one.number}{' *' if one is found.winner else ''}",
            *(f"{one.settings[name]:.3g}" for name in names),
            f"{one.folds} of {found.folds}",
            str(one.best.step),
            f"{one.best.success:.3f}",
            f"{one.best.lost:+.3f}",
        ]
        for one in sorted(found.trials, key=lambda one: (-one.folds, one.best.success, one.best.lost))
    ]
    columns = ["trial", *names, "folds", "step", "own success", "lost"]
    print_table(f"{found.repairer.kind}: trials on the defender's own backdoor (* wins)", columns, rows)
    winner = " ".join(f"repairer.{name}={value!r}" for name, value in found.winner.settings.items())
    stdout.print(f"The winner: {winner}", highlight=False)
    if not found.winner.best.step:
        stdout.print(f"No trial undid anything within the budget of {game.budget:g}, so nothing has been learnt.")


def _print_row(row: dict[str, Any]) -> None:
    """One game as a table a person can read."""
    name = title(row["game"])
    if "error" in row:
        stdout.print(f"{name}: {row['error']}", highlight=False)
        return
    result = row["result"]
    if "drop" in result:
        _print_certification(name, result)
    elif "suspect" in result:
        _print_robustness(name, result)
    elif "base_rate" in result:
        _print_transfer(name, result)
    else:
        said = {"auc": "ROC AUC", "right_class": "right class named", "above_twin": "above its twin"}
        rows = [[text, str(Estimate.from_json(result[key]))] for key, text in said.items()]
        print_table(name, ["over models", "value"], rows)


def _print_robustness(name: str, result: dict[str, Any]) -> None:
    columns = ("clean_accuracy", "attack_success")
    rows = [
        [model, "", *(str(Estimate.from_json(result[model][column])) for column in columns)]
        for model in ("suspect", "twin", "sanitized")
        if model in result
    ]
    for reading, measured in result.get("repaired", {}).items():
        point = Point.from_json(measured)
        rows.append([f"repaired, {reading}", str(point.step), str(point.clean_accuracy), str(point.attack_success)])
    print_table(name, ["model", "step", "clean accuracy", "attack success"], rows)
    if "sanitized" in result:
        found = result["sanitized"]
        said = {"auc": "ROC AUC", "poisoned_removed": "poisoned removed", "clean_removed": "clean removed"}
        rows = [[text, str(Estimate.from_json(found[key]))] for key, text in said.items() if found[key] is not None]
        print_table(f"{found['removed']} of {found['rows']} rows removed", ["over rows", "value"], rows)
    if "curve" not in result:
        return
    curve = [Point.from_json(point) for point in result["curve"]]
    rows = [[str(point.step), str(point.clean_accuracy), str(point.attack_success)] for point in curve]
    print_table("repair curve", ["step", "clean accuracy", "attack success"], rows)


def _print_certification(name: str, result: dict[str, Any]) -> None:
    rows = [
        [f"{who}, {where}", *(str(Estimate.from_json(result[who][where][rate])) for rate in VOUCHED)]
        for who in ("twin", "undefended", "suspect")
        if who in result
        for where in ("clean", "stamped")
    ]
    print_table(name, ["model, images", *VOUCHED.values()], rows)
    said = {
        "drop": "certificates lost against the twin, stamped",
        "stealth": "the same, clean",
        "recovered": "given back by the defence, stamped",
        "given_up": "given up for that, clean",
    }
    rows = [[text, str(Estimate.from_json(result[key]["certified"]))] for key, text in said.items() if key in result]
    if "guard" in result:
        rows.append(["stamped queries told apart (ROC AUC)", str(Estimate.from_json(result["guard"]["auc"]))])
    print_table("the same images, paired", ["what", "value"], rows)


def _print_transfer(name: str, result: dict[str, Any]) -> None:
    rows = [[said, str(Estimate.from_json(result[key]))] for key, said in RATES.items()]
    accuracy = result["clean_accuracy"]
    rows += [[f"clean accuracy, {said}", str(Estimate.from_json(accuracy[key]))] for key, said in TUNED.items()]
    print_table(name, ["over targets or test images", "value"], rows)


VOUCHED = {"accuracy": "right", "certified": "certified", "certified_wrong": "certified, wrong"}
RATES = {"success": "targets that get the poisons' label", "base_rate": "without poisons"}
TUNED = {"pretrained": "pre-trained", "fine_tuned": "fine-tuned clean", "poisoned": "fine-tuned with poisons"}


def list_components(family: str | None, *, as_json: bool) -> None:
    """The registered methods of one family or of all."""
    if family is not None and family not in families():
        raise SettingError(f"unknown family {family!r}; {known(families(), family)}")
    chosen = (family,) if family else families()
    entries = [
        {"family": each, "name": name, "paper": cls.paper, "summary": _summary(cls)}
        for each in chosen
        for name, cls in members(each).items()
    ]
    if as_json:
        print_json(entries)
        return
    for each in chosen:
        rows = [[entry["name"], entry["summary"], entry["paper"]] for entry in entries if entry["family"] == each]
        print_table(each, ["name", "what it is", "paper"], rows)


def _paragraphs(cls: type[Component]) -> list[str]:
    """A docstring's paragraphs, each on one line."""
    return [" ".join(part.split()) for part in inspect.cleandoc(cls.__doc__ or "").split("\n\n")]


def _summary(cls: type[Component]) -> str:
    """The first sentence of a docstring."""
    return _paragraphs(cls)[0].split(". ")[0].rstrip(".")


def _find(name: str) -> type[Component]:
    everywhere = {each: cls for family in families() for each, cls in members(family).items()}
    if name not in everywhere:
        raise SettingError(f"unknown name {name!r}; {known(everywhere, name)}")
    return find_component(everywhere[name].family, name)


def show(name: str, *, image: Path | None, device: str, as_json: bool) -> None:
    """One method in full, or drawn."""
    cls = _find(name)
    if image is not None:
        draw(name, cls.family, image, device)
        return
    settings = [
        {"setting": field, "type": _type_text(cls, field), "default": _default(cls, field)}
        for field in cls.model_fields
    ]
    if as_json:
        document = {"name": name, "family": cls.family, "paper": cls.paper, "revision": cls.revision}
        print_json({**document, "explanation": inspect.cleandoc(cls.__doc__ or ""), "settings": settings})
        return
    stdout.print(f"[bold]{name}[/] ({cls.family})   {cls.paper}\n", highlight=False)
    for paragraph in _paragraphs(cls):
        stdout.print(paragraph + "\n", highlight=False, markup=False)
    rows = [[each["setting"], each["type"], json.dumps(each["default"])] for each in settings]
    print_table("settings", ["setting", "type", "default"], rows)


def _type_text(cls: type[Component], field: str) -> str:
    """The annotation as written, short of module names."""
    annotation = cls.model_fields[field].annotation
    return inspect.formatannotation(annotation).replace("bezoar.roles.", "").replace("typing.", "")


def _default(cls: type[Component], field: str) -> Any:
    default = cls.model_fields[field].get_default(call_default_factory=True, validated_data={})
    if default is PydanticUndefined:
        return "needed"
    return plain(default)


def check(name: str, *, as_json: bool) -> bool:
    """Hold a method to the common tests of its role; True if it passes them all."""
    cls = _find(name)
    outcomes = hold_to_tests(cls)
    if as_json:
        print_json([{"check": each.claim, "passed": not each.failure, "failure": each.failure} for each in outcomes])
    else:
        rows = [["failed" if each.failure else "passed", each.claim, each.failure] for each in outcomes]
        print_table(f"checks of {name}", ["", "claim", "why not"], rows)
    return not any(each.failure for each in outcomes)
