"""`bezoar reproduce`: a table or figure of the paper, from games to verdicts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bezoar.cli.console import Bars, make_referee, print_json, print_table, stdout
from bezoar.cli.sweeping import print_plan, watched
from bezoar.report.groups import Row
from bezoar.reproduce.experiments import find, folder_of_experiments, games_of, outcome, reproduction_page
from bezoar.reproduce.outcome import Outcome
from bezoar.sweep import Engine, Queue, Results


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
    rows: list[Row] = []
    for sweep in experiment.sweeps:
        games, kept = games_of(sweep, preset, folder), Results(where / f"{sweep}.jsonl")
        if dry_run:
            print_plan(games, referee, kept, tuned=False, as_json=as_json)
        elif draw_only:
            left = len(Queue(games, referee, kept).left)
            if left and not as_json:
                stdout.print(f"{left} of {len(games)} games of {sweep} have not been played.", highlight=False)
            rows += [kept.rows[address] for game in games if kept.has(address := game.address(referee))]
        else:
            rows += watched(games, referee, kept, engine, bars)
    if dry_run:
        return
    played = [row for row in rows if "result" in row]
    found = outcome(name, played, preset, folder)
    if out is not None:
        reproduction_page(out / "report.html", name, preset, found, played)
    if as_json:
        failed = [row for row in rows if "error" in row]
        print_json({"name": name, "preset": preset, "rows": len(played), "failed": failed, **found.as_json()})
        return
    _print(f"{experiment.title}, preset {preset}, {len(played)} games", found, [row for row in rows if "error" in row])


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
