"""Options that several commands share."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Layout(StrEnum):
    """How a whole poisoned data set is written."""

    folder = "folder"
    parquet = "parquet"


class Scale(StrEnum):
    """How large a reproduction is."""

    cpu = "cpu"
    gpu = "gpu"
    paper = "paper"


Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout and nothing else there.")]
Out = Annotated[Path | None, typer.Option("--out", help="Folder for result.json, report.html and the artefacts.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")]
Data = Annotated[
    list[Path] | None, typer.Option(help="Where data sets are looked for, before the folders of BEZOAR_DATA.")
]
Preset = Annotated[str | None, typer.Option(help="A variant that the file names; the first by default.")]
RowsFile = Annotated[
    Path | None, typer.Option(help="File of result rows; by default the settings file's name with .jsonl.")
]
As = Annotated[Layout | None, typer.Option("--as", help="Write the whole poisoned data set as well, with a manifest.")]
SeedNumber = Annotated[int, typer.Option("--seed", min=0, help="Everything random follows from this number.")]
Changes = Annotated[
    list[str] | None, typer.Argument(metavar="[FIELD=VALUE]...", help="Dotted overrides: attack.trigger.size=5")
]
Model = Annotated[Path, typer.Argument(help="A model folder of bezoar's, or your own .safetensors, .pt or .pth file.")]
TrustedFolder = Annotated[Path, typer.Option("--trusted", help="Trusted images: one folder per class.")]
Network = Annotated[
    str | None,
    typer.Option(
        help="Network of your own checkpoint: timm:NAME, torchvision:NAME, hf:NAME or package.module:function."
    ),
]
Classes = Annotated[str | None, typer.Option(help="Class names in the order of the outputs: cat,dog,... or a file.")]
Numbers = Annotated[str | None, typer.Option(help="One number per channel, e.g. 0.485,0.456,0.406.")]
Size = Annotated[int | None, typer.Option(min=8, help="Side of the images the network takes; its own by default.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check every game and print the plan, play none.")]
Workers = Annotated[
    int | None, typer.Option(min=1, help="How many games are played at once, through Ray; one without it.")
]
Minutes = Annotated[
    float | None,
    typer.Option(
        help="After so many minutes no further game is begun; those in play are finished. The same command goes on, "
        "and stages inside a game are kept in the store, too."
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(
        min=1, help="Threads of each game, on which floats depend: the cores shared by workers, one on a cluster."
    ),
]
RayAddress = Annotated[
    str | None, typer.Option(help="A Ray cluster, e.g. auto or 10.0.0.1:6379; BEZOAR_HOME must be a shared folder.")
]
GpuShare = Annotated[
    float | None, typer.Option(min=0, max=1, help="Part of a graphics card for each game, so that several fit on one.")
]
