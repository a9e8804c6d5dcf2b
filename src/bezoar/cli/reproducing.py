"""`bezoar reproduce`: a table or figure of the paper, from games to verdicts."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from bezoar.cli.console import Bars, make_referee, print_json, print_table, stdout
from bezoar.cli.sweeping import plan_of, planned, played, print_left, print_plan
from bezoar.component import Settings
from bezoar.games.game import Game
from bezoar.games.robustness import Robustness
from bezoar.plans import plan
from bezoar.report.groups import Row
from bezoar.report.parts import as_text
from bezoar.reproduce.experiments import find, folder_of_experiments, outcome, reproduction_page, settings_of
from bezoar.reproduce.outcome import Outcome
from bezoar.rows import Results
from bezoar.slices import Slice
from bezoar.sweep import Engine, Queue


def reproduce(
    name: str,
    *,
    preset: str,
    experiments: Path | None,
    results: Path | None,
    out: Path | None,
    dry_run: bool,
    minutes: float | None,
    draw_only: bool,
    engine: Engine,
    data: list[Path],
    device: str,
    as_json: bool,
) -> None:
    """Play the games that have no row yet, draw the table or figure, and judge it."""
    limit = Slice(minutes)
    experiment, folder = find(name), folder_of_experiments(name, experiments)
    bars = Bars()
    referee = make_referee(device, data, bars)
    where = results or Path("results") / experiment.paper / preset
    described = {sweep: settings_of(sweep, preset, folder) for sweep in experiment.sweeps if experiment.draw}
    files = {sweep: Results(where / f"{sweep}.jsonl") for sweep in described}
    games = {sweep: plan(one) if draw_only else planned(one, []) for sweep, one in described.items()}
    if dry_run:
        missing = [game for sweep, few in games.items() for game in Queue(few, referee, files[sweep]).left.values()]
        known = [row for kept in files.values() for row in kept.rows.values()]
        document = plan_of([game for few in games.values() for game in few], missing, referee, known, where)
        tuned = any(one.tuned for one in described.values())
        print_plan({**document, "tuned": tuned}, as_json=as_json)
        return
    rows: list[Row] = []
    for sweep, one in described.items():
        if not draw_only:
            rows += played(games[sweep], referee, files[sweep], engine, bars, limit=limit, searched=one.tuned)
            continue
        few = _found(games[sweep], files[sweep], searched=one.tuned)
        rows += few
        if len(few) < len(games[sweep]) and not as_json:
            missed = len(games[sweep]) - len(few)
            stdout.print(f"{missed} of {len(games[sweep])} games of {sweep} have not been played.", highlight=False)
    left = sum(map(len, games.values())) - len(rows)
    measured = [row for row in rows if "result" in row]
    failed = [row for row in rows if "error" in row]
    found = outcome(name, measured, preset, folder, referee)
    if out is not None:
        reproduction_page(out / "report.html", name, preset, found, measured)
    if as_json:
        told = {"name": name, "preset": preset, "rows": len(measured), "left": left, "failed": failed}
        print_json({**told, **found.as_json()})
        return
    _print(f"{experiment.title}, preset {preset}, {len(measured)} games", found, failed)
    if out is None and any(section.figures for section in found.sections):
        stdout.print(f"For its figures: bezoar reproduce {name} --preset {preset} --out DIR", highlight=False)
    print_left(0 if draw_only else left)


def _found(games: Sequence[Game], kept: Results, *, searched: bool) -> list[Row]:
    """The rows of games, found by their settings, so that whoever has no data can draw what others have measured.

    The settings that a search has found are not known without the data either, so they are left out of account.
    """
    found: list[Row] = []
    for game in games:
        free = game.repairer.ranges if searched and isinstance(game, Robustness) and game.repairer else ()
        wanted = _fixed(game.identity(), free)
        found += [row for row in kept.rows.values() if "result" in row and _fixed(row["game"], free) == wanted][:1]
    return found


def _fixed(game: Settings, free: Collection[str]) -> Settings:
    """The settings of a game without some of its repairer's."""
    if not free or not isinstance(game.get("repairer"), Mapping):
        return game
    return {**game, "repairer": {name: value for name, value in game["repairer"].items() if name not in free}}


def _print(title: str, found: Outcome, failed: Sequence[Row]) -> None:
    stdout.print(f"[bold]{title}[/]", highlight=False)
    if found.claims:
        lines = [[one.text, one.standing, one.because] for one in found.claims]
        print_table("what the paper says", ["claim", "here", "measured"], lines)
    if found.compared:
        lines = [
            [one.what, f"{one.printed:.2f}", str(one.measured), one.verdict]
            for one in found.compared
            if one.measured is not None
        ]
        print_table("printed numbers", ["number", "printed", "measured", "verdict"], lines)
    if found.claims or found.compared:
        stdout.print(found.summary, highlight=False)
    for section in () if found.claims or found.compared else found.sections:
        if section.table is not None:
            table = as_text(section.table)
            print_table(section.title, list(table.columns), table.to_numpy().tolist())
    for row in failed:
        stdout.print(f"failed: {row['error']}", highlight=False, markup=False)
