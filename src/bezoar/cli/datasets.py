"""The commands on data sets and their options; what a command does is imported when it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bezoar.cli.options import Changes, Classes, Device, Json, Network, Numbers, Out, SeedNumber

datasets = typer.Typer()


@datasets.command()
def screen(
    dataset: Annotated[
        str,
        typer.Argument(help="A folder with one folder of images per class, or a registered data set, e.g. cifar10."),
    ],
    trusted: Annotated[
        Path | None,
        typer.Option("--trusted", help="Checked images of the same source, one folder per class; for a verdict."),
    ] = None,
    method: Annotated[str, typer.Option(help="Which sanitizer; see 'bezoar list sanitizers'.")] = "spectral_signatures",
    remove: Annotated[
        float, typer.Option(help="Share of the rows that is named, and removed from a clean copy.")
    ] = 0.05,
    clean_copy: Annotated[
        Path | None, typer.Option("--clean-copy", help="A new folder for the rows that are left, one folder per class.")
    ] = None,
    model: Annotated[
        Path | None, typer.Option("--model", help="Your own model of these data; by default one is trained.")
    ] = None,
    architecture: Network = None,
    classes: Classes = None,
    mean: Numbers = None,
    std: Numbers = None,
    changes: Changes = None,
    out: Out = None,
    seed: SeedNumber = 0,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Rank the images of scraped data by how suspicious they are, and copy the rest if you like.

    A screening aid: it looks for backdoors by default (spectral_signatures); ask deep_knn for wrong labels and for
    poisons without a trigger. A model is trained on the data by the demo's recipe, for images of 32x32; overrides are
    those of a game: data.size=64, architecture=resnet18, trainer.epochs=30, sanitizer.ratio=0.5.

    Some row is always the most suspicious. With --trusted, these images are trained on and ranked too, and it is
    tested whether they are rarer among the named rows than chance has it. They must be like the clean images of
    their classes: best a random, checked part of the same source.

    Exit status 0: nothing found, or open (always without --trusted); 1: suspicious; 2: it could not be asked.

    Example: bezoar screen scraped/ --trusted checked/ --out screened --clean-copy cleaned
    """
    from bezoar.cli import owning, screening  # noqa: PLC0415

    network = owning.Network(architecture, classes, mean, std, None)
    suspicious = screening.screen(
        dataset,
        trusted,
        screening.Wanted(method, remove, clean_copy, out),
        None if model is None else screening.Own(model, network),
        changes or [],
        seed=seed,
        device=device,
        as_json=json,
    )
    raise typer.Exit(1 if suspicious else 0)
