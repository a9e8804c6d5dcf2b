"""Settings files: what they describe, and the games that their grids span.

A settings file describes one game. It may build on another (``extends``), name variants (``presets``, the first is the
default), and span a grid. A variant is one of the file that is built on as well, unless ``preset`` names another of
its. ``grid`` gives dotted fields their values, each field an axis of its own; fields of a ``zip`` vary together. Values
are a list, or numbers in short: ``{count: 10}`` (0 to 9, for seeds), ``{from: 50, to: 300, step: 50}``, ``{from: 10,
to: 1000, points: 5, scale: log}``. With ``tuned: true`` the repairer plays with the settings that an oracle-free search
finds (`bezoar.tuning`).
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, cast

import yaml

from bezoar.component import Settings, assign, build, canonical, override
from bezoar.errors import SettingError, known
from bezoar.games.game import Game

PACKAGED = ("demo",)
"""Settings files that come with bezoar and can be named without a path."""

_DIRECTIVES = ("extends", "preset", "presets", "grid", "zip", "game", "tuned")

Axis = dict[str, list[Any]]
"""Dotted fields that vary together -> their values, all equally many."""


@dataclass(frozen=True)
class SettingsFile:
    """A settings file with its variants resolved.

    Attributes:
        settings: of one game.
        grid: dotted field -> values, each field an axis of its own; may be empty.
        tuned: whether the repairer's settings are to be searched first.
        zipped: axes on which several fields vary together.
    """

    settings: Settings
    grid: Axis
    tuned: bool = False
    zipped: tuple[Axis, ...] = ()


def read_settings(source: str | Path, preset: str | None = None) -> SettingsFile:
    """Read a settings file or a packaged one.

    Raises:
        SettingError: no such file, no YAML mapping, an unknown preset, or a grid that is no list.
    """
    content = _content(source)
    merged: Settings = {}
    grid: Axis = {}
    zipped: tuple[Axis, ...] = ()
    tuned = False
    parent = _parent(source, content)
    presets = cast("dict[str, Settings]", content.get("presets") or {})
    chosen = preset or ("" if parent else content.get("preset", "")) or next(iter(presets), "")
    if parent is not None:
        inherited = read_settings(parent, content.get("preset") or (chosen if chosen in _offered(parent) else None))
        merged, grid, tuned, zipped = inherited.settings, inherited.grid, inherited.tuned, inherited.zipped
    if chosen and chosen not in _offered(source):
        raise SettingError(f"preset: {source} has no {chosen!r}; {known(_offered(source), chosen)}")
    layers = [content, presets[chosen]] if chosen in presets else [content]
    for layer in layers:
        plain = {name: value for name, value in layer.items() if name not in _DIRECTIVES}
        if "game" in layer:
            plain["kind"] = layer["game"]
        merged = _merge(merged, plain)
        grid = {**grid, **_axis(layer.get("grid") or {}, "grid")}
        zipped = _zipped(layer["zip"] or []) if "zip" in layer else zipped
        tuned = layer.get("tuned", tuned)
    if not isinstance(tuned, bool):
        raise SettingError(f"tuned: true or false is expected, not {tuned!r}")
    varying = [*grid, *(name for axis in zipped for name in axis)]
    twice = [name for place, name in enumerate(varying) if name in varying[:place]]
    if twice:
        raise SettingError(f"zip: {twice[0]!r} varies elsewhere already")
    return SettingsFile(merged, grid, tuned, zipped)


def _parent(source: str | Path, content: Settings) -> str | Path | None:
    """The file that this one extends."""
    named = content.get("extends")
    return named if named is None or named in PACKAGED else Path(source).parent / str(named)


def _offered(source: str | Path) -> list[str]:
    """The presets of a file, and those of the file it extends unless it has chosen one of them for good."""
    content = _content(source)
    parent = None if "preset" in content else _parent(source, content)
    return list(dict.fromkeys([*(content.get("presets") or {}), *(_offered(parent) if parent else [])]))


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


def _axis(given: Any, where: str) -> Axis:
    if not isinstance(given, Mapping):
        raise SettingError(f"{where}: a mapping from dotted fields to their values is expected, not {given!r}")
    return {name: _values(values, f"{where}.{name}") for name, values in cast("Mapping[str, Any]", given).items()}


def _zipped(given: Any) -> tuple[Axis, ...]:
    """One axis, or a list of them; an empty one is none, so that a preset can clear what it inherits."""
    several = cast("list[Any]", given) if isinstance(given, list) else [given]
    found = tuple(axis for axis in (_axis(one, "zip") for one in several) if axis)
    for axis in found:
        counts = {name: len(values) for name, values in axis.items()}
        if len(set(counts.values())) > 1:
            said = ", ".join(f"{name} has {count}" for name, count in counts.items())
            raise SettingError(f"zip: fields that vary together need equally many values; {said}")
    return found


def _values(given: Any, where: str) -> list[Any]:
    """A list as it stands, or the numbers that a mapping stands for."""
    if isinstance(given, list) and given:
        return cast("list[Any]", given)
    if isinstance(given, Mapping):
        spec = cast("Mapping[str, Any]", given)
        numbers = all(isinstance(value, (int, float)) for name, value in spec.items() if name != "scale")
        for names, spread in _SPREADS.items():
            if numbers and set(spec) == set(names):
                values = spread(spec)
                if values:
                    return values
    raise SettingError(
        f"{where}: a list with at least one value is expected, or {{count: 10}}, {{from: 50, to: 300, step: 50}} or "
        f"{{from: 10, to: 1000, points: 5, scale: log}}, not {given!r}"
    )


def _counted(spec: Mapping[str, Any]) -> list[Any]:
    return list(range(spec["count"])) if isinstance(spec["count"], int) else []


def _stepped(spec: Mapping[str, Any]) -> list[Any]:
    """From `from` in steps up to `to`, which is one of them if a step meets it; rounding does not lose the last."""
    low, high, step = spec["from"], spec["to"], spec["step"]
    count = math.floor((high - low) / step + 1e-9) + 1 if step > 0 else 0
    return [_round(low + number * step) for number in range(count)]


def _spread(spec: Mapping[str, Any]) -> list[Any]:
    """So many points from `from` to `to`, evenly or evenly on a logarithmic scale; whole numbers stay whole."""
    low, high, count, scale = spec["from"], spec["to"], spec["points"], spec.get("scale", "linear")
    if not isinstance(count, int) or count < 2 or scale not in ("linear", "log") or (scale == "log" and low <= 0):
        return []
    parts = [number / (count - 1) for number in range(count)]
    values = [low * (high / low) ** part if scale == "log" else low + (high - low) * part for part in parts]
    whole = isinstance(low, int) and isinstance(high, int)
    return list(dict.fromkeys(round(value) if whole else _round(value) for value in values))


def _round(value: Any) -> Any:
    """The number that a person would have written, or a game would have another address."""
    return float(f"{value:.12g}") if isinstance(value, float) else value


_SPREADS = {
    ("count",): _counted,
    ("from", "to", "step"): _stepped,
    ("from", "to", "points"): _spread,
    ("from", "to", "points", "scale"): _spread,
}
"""Which settings a short form of numbers has, and what it stands for."""


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
    if described.grid or described.zipped:
        raise SettingError(f"{source}: this file spans a grid of games; use 'bezoar sweep'")
    return build(Game, override(described.settings, changes))


def plan(described: SettingsFile, changes: Sequence[str] = ()) -> list[Game]:
    """All games of a grid, validated before the first one is played; the last field varies fastest.

    Raises:
        SettingError: any game of the grid is wrong; the message names its place in the grid.
    """
    games: list[Game] = []
    base = override(described.settings, changes)
    for point in _points(described):
        settings = cast(Settings, json.loads(json.dumps(base)))
        for field, value in point.items():
            assign(settings, field, value)
        try:
            games.append(build(Game, settings))
        except SettingError as error:
            raise SettingError(f"at {canonical(point)}: {error}") from None
    return games


def _points(described: SettingsFile) -> Iterator[dict[str, Any]]:
    axes = [*({name: values} for name, values in described.grid.items()), *described.zipped]
    steps = [[dict(zip(axis, values, strict=True)) for values in zip(*axis.values(), strict=True)] for axis in axes]
    for chosen in itertools.product(*steps):
        yield {name: value for part in chosen for name, value in part.items()}
