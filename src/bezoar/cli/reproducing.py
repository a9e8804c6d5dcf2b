"""`bezoar reproduce`: a table or figure of the paper, from games to verdicts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bezoar.cli.console import Bars, make_referee, print_json, print_table, stdout
from bezoar.cli.sweeping import plan_of, print_plan, watched
from bezoar.component import canonical
from bezoar.games.game import Game
from bezoar.report.groups import Row
from bezoar.reproduce.experiments import find, folder_of_experiments, games_of, outcome, reproduction_page
from bezoar.reproduce.outcome import Outcome
from bezoar.rows import Results
from bezoar.sweep import Engine, Queue


def reproduce(
    name: str,
    *,
    preset: str,
    experiments: Path | None,
    results: Path | None,
    out: Path | None,
    dry_run: bool,
    draw_only: bool,
    engine: Engine,
    data: list[Path],
    device: str,
    as_json: bool,
) -> None:
    """Play the games that have no row yet, draw the table or figure, and judge it."""
    experiment, folder = find(name), folder_of_experiments(experiments)
    bars = Bars()
    referee = make_referee(device, data, bars)
    where = results or Path("results") / folder.name / preset
    sweeps = {
        sweep: (games_of(sweep, preset, folder), Results(where / f"{sweep}.jsonl")) for sweep in experiment.sweeps
    }
    if dry_run:
        games = [game for few, _ in sweeps.values() for game in few]
        missing = [game for few, kept in sweeps.values() for game in Queue(few, referee, kept).left.values()]
        known = [row for _, kept in sweeps.values() for row in kept.rows.values()]
        print_plan(plan_of(games, missing, referee, known, where), as_json=as_json)
        return
    rows: list[Row] = []
    for sweep, (games, kept) in sweeps.items():
        if not draw_only:
            rows += watched(games, referee, kept, engine, bars)
            continue
        played = _played(games, kept)
        rows += played
        if len(played) < len(games) and not as_json:
            left = len(games) - len(played)
            stdout.print(f"{left} of {len(games)} games of {sweep} have not been played.", highlight=False)
    played = [row for row in rows if "result" in row]
    found = outcome(name, played, preset, folder)
    if out is not None:
        reproduction_page(out / "report.html", name, preset, found, played)
    if as_json:
        failed = [row for row in rows if "error" in row]
        print_json({"name": name, "preset": preset, "rows": len(played), "failed": failed, **found.as_json()})
        return
    _print(f"{experiment.title}, preset {preset}, {len(played)} games", found, [row for row in rows if "error" in row])


def _played(games: Sequence[Game], kept: Results) -> list[Row]:
    """The rows of games, found by their settings, so that whoever has no data can draw what others have measured."""
    found = {canonical(row["game"]): row for row in kept.rows.values() if "result" in row}
    return [found[key] for game in games if (key := canonical(game.identity())) in found]


def _print(title: str, found: Outcome, failed: Sequence[Row]) -> None:
    stdout.print(f"[bold]{title}[/]", highlight=False)
    if found.claims:
        lines = [[one.text, one.standing, one.because] for one in found.claims]
        print_table("what the paper says", ["claim", "here", "measured"], lines)
    if found.compared:
        lines = [
            [one.what, f"{one.printed:.2f}", "" if one.measured is None else str(one.measured), one.verdict]
            for one in found.compared
        ]
        print_table("printed numbers", ["number", "printed", "measured", "verdict"], lines)
    stdout.print(found.summary, highlight=False)
    for row in failed:
        stdout.print(f"failed: {row['error']}", highlight=False, markup=False)
