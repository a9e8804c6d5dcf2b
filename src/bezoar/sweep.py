"""Many games from one YAML file: a grid over dotted fields, one result row per game, resumable.

A settings file describes one game. It may build on another (``extends``), name variants (``presets``, the
first is the default), and span a grid (``grid``: dotted field -> list of values). With ``tuned: true`` the
repairer plays with the settings that an oracle-free search finds (`bezoar.tuning`).
"""

from __future__ import annotations

import itertools
import json
import platform
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, cast

import torch
import yaml

import bezoar
from bezoar.component import Settings, assign, build, canonical, override
from bezoar.errors import BezoarError, SettingError, StoreError, known
from bezoar.games.game import Game
from bezoar.games.referee import Referee
from bezoar.games.robustness import Robustness
from bezoar.store import write_whole
from bezoar.tuning import FOLDS, require_searchable, tuned

PACKAGED = ("demo",)
"""Settings files that come with bezoar and can be named without a path."""

_DIRECTIVES = ("extends", "preset", "presets", "grid", "game", "tuned")


@dataclass(frozen=True)
class SettingsFile:
    """A settings file with its variants resolved: the settings of one game, and a grid that may be empty.

    `tuned` says that the repairer's settings are to be searched first.
    """

    settings: Settings
    grid: dict[str, list[Any]]
    tuned: bool = False


def read_settings(source: str | Path, preset: str | None = None) -> SettingsFile:
    """Read a settings file or a packaged one.

    Raises:
        SettingError: no such file, no YAML mapping, an unknown preset, or a grid that is no list.
    """
    content = _content(source)
    merged: Settings = {}
    grid: dict[str, list[Any]] = {}
    tuned = False
    if "extends" in content:
        parent = str(content["extends"])
        where = parent if parent in PACKAGED else Path(source).parent / parent
        inherited = read_settings(where, content.get("preset"))
        merged, grid, tuned = inherited.settings, inherited.grid, inherited.tuned
    presets = cast("dict[str, Settings]", content.get("presets") or {})
    chosen = preset or ("" if "extends" in content else content.get("preset", "")) or next(iter(presets), "")
    if chosen and chosen not in presets:
        raise SettingError(f"preset: {source} has no {chosen!r}; {known(presets, chosen)}")
    layers = [content, presets[chosen]] if chosen else [content]
    for layer in layers:
        plain = {name: value for name, value in layer.items() if name not in _DIRECTIVES}
        if "game" in layer:
            plain["kind"] = layer["game"]
        merged = _merge(merged, plain)
        grid = {**grid, **_grid(layer.get("grid") or {})}
        tuned = layer.get("tuned", tuned)
    if not isinstance(tuned, bool):
        raise SettingError(f"tuned: true or false is expected, not {tuned!r}")
    return SettingsFile(merged, grid, tuned)


def _content(source: str | Path) -> Settings:
    name = str(source)
    try:
        text = (
            files("bezoar").joinpath(f"presets/{name}.yaml").read_text()
            if name in PACKAGED
            else Path(source).read_text()
        )
        content = yaml.safe_load(text)
    except OSError as error:
        raise SettingError(
            f"{name}: cannot be read ({error.strerror}); known without a path: {', '.join(PACKAGED)}"
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingError(f"{name}: not YAML ({' '.join(str(error).split())})") from None
    if not isinstance(content, dict):
        raise SettingError(f"{name}: a settings file holds a mapping, e.g. 'game: robustness'")
    return cast(Settings, content)


def _grid(grid: Any) -> dict[str, list[Any]]:
    if not isinstance(grid, Mapping):
        raise SettingError(f"grid: a mapping from dotted fields to lists of values is expected, not {grid!r}")
    for field, values in cast("Mapping[str, Any]", grid).items():
        if not isinstance(values, list) or not values:
            raise SettingError(f"grid.{field}: a list with at least one value is expected, not {values!r}")
    return dict(cast("Mapping[str, list[Any]]", grid))


def _merge(under: Settings, over: Settings) -> Settings:
    """Settings laid over others; a nested component of another kind replaces the one below."""
    merged = dict(under)
    for name, value in over.items():
        below = merged.get(name)
        below = {"kind": below} if isinstance(below, str) and isinstance(value, dict) else below
        if isinstance(below, dict) and isinstance(value, dict):
            nested = cast(Settings, value)
            same = "kind" not in nested or nested["kind"] == below.get("kind")
            merged[name] = _merge(cast(Settings, below), nested) if same else nested
        else:
            merged[name] = value
    return merged


def read_game(source: str | Path, *, preset: str | None = None, changes: Sequence[str] = ()) -> Game:
    """The one game of a settings file, with dotted overrides applied.

    Raises:
        SettingError: the file is not one game's, or a setting is wrong.
    """
    described = read_settings(source, preset)
    if described.grid:
        raise SettingError(f"{source}: this file spans a grid of games; use 'bezoar sweep'")
    return build(Game, override(described.settings, changes))


def plan(described: SettingsFile, changes: Sequence[str] = ()) -> list[Game]:
    """All games of a grid, validated before the first one is played; the last field varies fastest.

    Raises:
        SettingError: any game of the grid is wrong; the message names its place in the grid.
    """
    games: list[Game] = []
    base = override(described.settings, changes)
    for point in _points(described.grid):
        settings = cast(Settings, json.loads(json.dumps(base)))
        for field, value in point.items():
            assign(settings, field, value)
        try:
            games.append(build(Game, settings))
        except SettingError as error:
            raise SettingError(f"at {canonical(point)}: {error}") from None
    return games


def resolve(games: Sequence[Game], wanted: bool, referee: Referee) -> list[Game]:
    """The games of a settings file, their repairers with the settings that ``tuned: true`` asks for.

    Games that differ in attack, target, poison rate or seed alone share one search, through the store.

    Raises:
        SettingError: a game has no repairer to tune.
    """
    if not wanted:
        return list(games)
    return [game.replace(repairer=tuned(game, referee).repairer) for game in require_tunable(games)]


def require_tunable(games: Sequence[Game]) -> list[Robustness]:
    """The same games, all of which can be tuned.

    Raises:
        SettingError: one cannot; nothing has been trained or searched yet.
    """
    tunable: list[Robustness] = []
    for game in games:
        if not isinstance(game, Robustness) or game.repairer is None:
            raise SettingError(f"tuned: a {game.kind!r} game without a repairer has nothing to tune")
        require_searchable(game.repairer, game.trusted, FOLDS)
        tunable.append(game)
    return tunable


def _points(grid: Mapping[str, list[Any]]) -> Iterator[dict[str, Any]]:
    for values in itertools.product(*grid.values()):
        yield dict(zip(grid, values, strict=True))


class Results:
    """Rows of a sweep, one per game and keyed by its address: a file of JSON lines, rewritten as a whole."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: dict[str, dict[str, Any]] = {}
        if path.is_file():
            try:
                rows = [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
                self.rows = {row["address"]: row for row in rows}
            except (ValueError, KeyError, TypeError):
                raise StoreError(f"{path}: this is no file of result rows; move it away or name another one") from None

    def add(self, row: dict[str, Any]) -> None:
        """Keep a row and write the file as a whole.

        Raises:
            StoreError: the file cannot be written; the old one is left as it was.
        """
        self.rows[row["address"]] = row
        write_whole(self.path, "".join(json.dumps(each, sort_keys=True) + "\n" for each in self.rows.values()))


def play(game: Game, referee: Referee) -> dict[str, Any]:
    """Play one game and make its result row: address, game, result, seconds, provenance."""
    started = time.monotonic()
    result = game.play(referee)
    return {
        "address": game.address(referee),
        "game": game.identity(),
        "result": result,
        "seconds": round(time.monotonic() - started, 1),
        "provenance": provenance(referee.lab.device),
    }


def sweep(games: Sequence[Game], referee: Referee, results: Results) -> Iterator[dict[str, Any]]:
    """Play the games whose rows do not exist yet, and yield every game's row in order.

    A game that fails with a message for the user is kept as a row with `error` instead of `result`
    and is played again next time; the rest go on.
    """
    for game in games:
        address = game.address(referee)
        row = results.rows.get(address)
        if row is None or "error" in row:
            try:
                row = play(game, referee)
            except StoreError:
                raise
            except BezoarError as error:
                row = {"address": address, "game": game.identity(), "error": str(error)}
            results.add(row)
        yield row


def provenance(device: torch.device) -> dict[str, Any]:
    """What a number depends on besides its settings."""
    return {
        "bezoar": bezoar.__version__,
        "commit": commit_of(Path(__file__).parent),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "machine": platform.machine(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "threads": torch.get_num_threads(),
    }


def commit_of(package: Path) -> str:
    """The commit of the checkout that a package runs from, marked if the package is changed; empty outside one.

    What lies beside the package does not count: a sweep that writes its rows into the checkout changes no code.
    """
    commit = _git(package, "describe", "--always", "--abbrev=12", "--exclude=*")
    return f"{commit}-dirty" if commit and _git(package, "status", "--porcelain", "--", ".") else commit


def _git(folder: Path, *words: str) -> str:
    """What git prints, or an empty text where there is no git, no checkout or no answer."""
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *words], capture_output=True, text=True, check=False, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()
