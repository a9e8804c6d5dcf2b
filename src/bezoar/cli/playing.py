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
    Minutes,
    Out,
    Preset,
    RayAddress,
    RowsFile,
    Scale,
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
    minutes: Minutes = None,
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
    share are trained once, whoever plays them. With --minutes a long sweep is played in slices; a game that
    lasts longer may be stopped (Ctrl-C) as well, since each stage inside it is kept in the store as soon as it is made.

    Example: bezoar sweep experiments/demo/unlearning.yaml --workers 2 --results rows.jsonl
    """
    from bezoar.cli import sweeping  # noqa: PLC0415

    engine = sweeping.make_engine(device, workers=workers, threads=threads, address=ray_address, gpu_share=gpu_share)
    sweeping.sweep(
        grid,
        changes or [],
        results=results,
        dry_run=dry_run,
        minutes=minutes,
        preset=preset,
        engine=engine,
        data=data or [],
        device=device,
        as_json=json,
    )


@playing.command()
def reproduce(
    name: Annotated[
        str,
        typer.Argument(metavar="NAME", help="table2, table3, table5, fig5 to fig9, or cp-fig3 and cp-fig5 to cp-fig8."),
    ],
    preset: Annotated[
        Scale, typer.Option(help="cpu: orderings, most in under an hour of two cores; gpu; paper.")
    ] = Scale.cpu,
    out: Out = None,
    results: Annotated[
        Path | None,
        typer.Option(help="Folder of the result rows; by default results/PAPER/PRESET."),
    ] = None,
    experiments: Annotated[
        Path | None, typer.Option(help="Folder of the settings files; by default that of the checkout.")
    ] = None,
    draw_only: Annotated[bool, typer.Option("--draw-only", help="Play nothing; draw the rows that exist.")] = False,
    dry_run: DryRun = False,
    minutes: Minutes = None,
    workers: Workers = None,
    threads: Threads = None,
    ray_address: RayAddress = None,
    gpu_share: GpuShare = None,
    data: Data = None,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Reproduce a table or figure of a paper: play its games, draw it, and judge it beside what is printed.

    Names with cp are of "Transferable Clean-Label Poisoning Attacks", the others of "Pick your Poison".

    Every claim of the paper and every printed number gets a verdict. At the preset cpu only orders are judged.
    Games that are shared with other tables are played once; the same command resumes, also after a slice of --minutes.

    Example: bezoar reproduce fig5 --preset cpu --workers 2 --out fig5
    """
    from bezoar.cli import reproducing, sweeping  # noqa: PLC0415

    engine = sweeping.make_engine(device, workers=workers, threads=threads, address=ray_address, gpu_share=gpu_share)
    reproducing.reproduce(
        name,
        preset=preset.value,
        experiments=experiments,
        results=results,
        out=out,
        dry_run=dry_run,
        minutes=minutes,
        draw_only=draw_only,
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
