"""The commands that play games and their options; what a command does is imported when it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bezoar.cli.options import (
    Changes,
    Data,
    Device,
    DryRun,
    GpuShare,
    Json,
    Out,
    Preset,
    RayAddress,
    RowsFile,
    Threads,
    Workers,
)

playing = typer.Typer()


@playing.command()
def run(
    game: Annotated[str, typer.Argument(metavar="GAME.yaml", help="A settings file, or 'demo'.")],
    changes: Changes = None,
    preset: Preset = None,
    out: Out = None,
    data: Data = None,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Play one game and print what was measured.

    Example: bezoar run examples/cifar10_badnets.yaml attack.poisons=100 --json
    """
    from bezoar.cli import research  # noqa: PLC0415

    research.run(game, changes or [], preset=preset, out=out, data=data or [], device=device, as_json=json)


@playing.command()
def sweep(
    grid: Annotated[str, typer.Argument(metavar="SWEEP.yaml", help="A settings file with a grid.")],
    changes: Changes = None,
    results: RowsFile = None,
    dry_run: DryRun = False,
    preset: Preset = None,
    workers: Workers = None,
    threads: Threads = None,
    ray_address: RayAddress = None,
    gpu_share: GpuShare = None,
    data: Data = None,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Play every game of a grid, one row each; the same command resumes.

    Games are played one after another, or several at once with --workers, or on a Ray cluster. Models that games
    share are trained once, whoever plays them.

    Example: bezoar sweep experiments/demo/unlearning.yaml --workers 2 --results rows.jsonl
    """
    from bezoar.cli import sweeping  # noqa: PLC0415

    engine = sweeping.make_engine(device, workers=workers, threads=threads, address=ray_address, gpu_share=gpu_share)
    sweeping.sweep(
        grid,
        changes or [],
        results=results,
        dry_run=dry_run,
        preset=preset,
        engine=engine,
        data=data or [],
        device=device,
        as_json=json,
    )


@playing.command()
def tune(
    game: Annotated[str, typer.Argument(metavar="GAME.yaml", help="A settings file of a robustness game, or 'demo'.")],
    changes: Changes = None,
    trials: Annotated[int, typer.Option(min=1, help="How many configurations are tried.")] = 20,
    folds: Annotated[int, typer.Option(min=2, help="Repairs that judge a configuration.")] = 3,
    preset: Preset = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder for result.json and trials.png.")] = None,
    data: Data = None,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Search settings of a game's repairer without an oracle, on a copy that the defender poisons itself.

    The search sees neither the attack nor the test set. A settings file with 'tuned: true' plays with the winner of
    20 trials on 3 folds.

    Example: bezoar tune demo --preset pivotal_tuning --trials 20
    """
    from bezoar.cli import research  # noqa: PLC0415

    research.tune(
        game,
        changes or [],
        trials=trials,
        folds=folds,
        preset=preset,
        out=out,
        data=data or [],
        device=device,
        as_json=json,
    )
