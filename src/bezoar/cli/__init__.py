"""The command line. This module only names commands and their options, so that ``--help`` is instant.

What a command does stands in `bezoar.cli.demonstration`, `bezoar.cli.owning` and `bezoar.cli.research`, which
are imported when it runs.
"""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from bezoar.errors import BezoarError


class _Commands(TyperGroup):
    """Commands whose errors are one message on stderr and exit status 2, never a traceback."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except BezoarError as error:
            sys.stderr.write(f"bezoar: {error}\n")
            raise typer.Exit(2) from None


app = typer.Typer(
    name="bezoar",
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""Find, measure and undo data poisoning of image classifiers.

    Begin with 'bezoar demo': it poisons, detects and repairs a classifier before your eyes.
    """,
)


class Layout(StrEnum):
    """How a whole poisoned data set is written."""

    folder = "folder"
    parquet = "parquet"


Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout and nothing else there.")]
Out = Annotated[Path | None, typer.Option("--out", help="Folder for result.json, report.html and the artefacts.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")]
Data = Annotated[
    list[Path] | None, typer.Option(help="Where data sets are looked for, before the folders of BEZOAR_DATA.")
]
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


def _print_version(asked: bool) -> bool:
    if asked:
        import bezoar  # noqa: PLC0415

        sys.stdout.write(f"bezoar {bezoar.__version__}\n")
        raise typer.Exit
    return asked


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version and exit.")
    ] = False,
) -> None:
    """Find, measure and undo data poisoning of image classifiers."""
    del version


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", help="Folder for the report, the model and the trusted images.")] = Path(
        "bezoar-demo"
    ),
    seed: SeedNumber = 0,
    quick: Annotated[bool, typer.Option("--quick", help="Half of the work: shows the way, proves nothing.")] = False,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Poison, detect and repair a classifier, in about two minutes on a laptop.

    Trains a poisoned and a clean twin on real digits over real photographs, asks a detector about
    both, repairs the poisoned one and writes report.html.

    Example: bezoar demo --out out
    """
    from bezoar.cli import demonstration  # noqa: PLC0415

    demonstration.demo(out, seed, quick=quick, device=device, as_json=json)


@app.command()
def audit(
    model: Model,
    trusted: TrustedFolder,
    architecture: Network = None,
    classes: Classes = None,
    mean: Numbers = None,
    std: Numbers = None,
    size: Size = None,
    detector: Annotated[str, typer.Option(help="Which detector; see 'bezoar list detectors'.")] = "neural_cleanse",
    changes: Changes = None,
    out: Out = None,
    seed: SeedNumber = 0,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Say whether a model is backdoored, in which class, and what the trigger looks like.

    Exit status 0: nothing found or inconclusive; 1: suspicious; 2: the question could not be asked.

    Example: bezoar audit model.pt --trusted images/ --architecture timm:resnet18 --classes cat,dog,ship,truck
    """
    from bezoar.cli import owning  # noqa: PLC0415

    network = owning.Network(architecture, classes, mean, std, size)
    suspicious = owning.audit(
        model, trusted, network, detector, changes or [], out=out, seed=seed, device=device, as_json=json
    )
    raise typer.Exit(1 if suspicious else 0)


@app.command()
def repair(
    model: Model,
    trusted: TrustedFolder,
    out: Annotated[Path, typer.Option("--out", help="Folder for the repaired model, result.json and report.html.")],
    architecture: Network = None,
    classes: Classes = None,
    mean: Numbers = None,
    std: Numbers = None,
    size: Size = None,
    repairer: Annotated[str, typer.Option(help="Which repairer; see 'bezoar list repairers'.")] = "unlearning",
    budget: Annotated[float, typer.Option(min=0, max=1, help="Accuracy that may be lost, absolute.")] = 0.02,
    folds: Annotated[int, typer.Option(min=2, help="Repairs that choose the step, besides the last one.")] = 5,
    changes: Changes = None,
    seed: SeedNumber = 0,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Undo a backdoor with a few trusted images; the repaired weights keep your own keys.

    The repair stops at the last step that a cross-validation on the trusted images accepts.

    Example: bezoar repair out/suspect --trusted out/trusted --out repaired
    """
    from bezoar.cli import owning  # noqa: PLC0415

    network = owning.Network(architecture, classes, mean, std, size)
    owning.repair(
        model,
        trusted,
        network,
        repairer,
        changes or [],
        budget=budget,
        folds=folds,
        out=out,
        seed=seed,
        device=device,
        as_json=json,
    )


@app.command()
def run(
    game: Annotated[str, typer.Argument(metavar="GAME.yaml", help="A settings file, or 'demo'.")],
    changes: Changes = None,
    preset: Annotated[str | None, typer.Option(help="A variant that the file names; the first by default.")] = None,
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


@app.command()
def sweep(
    grid: Annotated[str, typer.Argument(metavar="SWEEP.yaml", help="A settings file with a grid.")],
    changes: Changes = None,
    results: Annotated[
        Path | None, typer.Option(help="File of result rows; by default the settings file's name with .jsonl.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check every game and print the plan, play none.")] = False,
    preset: Annotated[str | None, typer.Option(help="A variant that the file names; the first by default.")] = None,
    data: Data = None,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Play every game of a grid, one row each; the same command resumes.

    Example: bezoar sweep experiments/demo/unlearning.yaml --results results/demo/unlearning.jsonl
    """
    from bezoar.cli import research  # noqa: PLC0415

    research.sweep(
        grid,
        changes or [],
        results=results,
        dry_run=dry_run,
        preset=preset,
        data=data or [],
        device=device,
        as_json=json,
    )


@app.command()
def poison(
    dataset: Annotated[str, typer.Argument(help="A registered data set, e.g. cifar10, or a folder of images.")],
    attack: Annotated[str, typer.Option("--attack", help="Which attack; see 'bezoar list attacks'.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for what the attack makes.")],
    changes: Changes = None,
    as_: Annotated[
        Layout | None, typer.Option("--as", help="Write the whole poisoned data set as well, with a manifest.")
    ] = None,
    seed: SeedNumber = 0,
    data: Data = None,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Poison a data set of your own and write the overlay, to see whether a training or a defence withstands it.

    An attack on the training code writes the poisoned model instead.

    Example: bezoar poison cifar10 --attack wanet --out wanet attack.poisons=500 --as parquet
    """
    from bezoar.cli import poisoning  # noqa: PLC0415

    poisoning.poison(
        dataset,
        attack,
        changes or [],
        out=out,
        layout=None if as_ is None else as_.value,
        seed=seed,
        data=data or [],
        device=device,
        as_json=json,
    )


@app.command("list")
def list_(
    family: Annotated[str | None, typer.Argument(help="attacks, repairers, detectors, ...; all by default.")] = None,
    json: Json = False,
) -> None:
    """Name the registered methods, with their papers.

    Example: bezoar list repairers
    """
    from bezoar.cli import research  # noqa: PLC0415

    research.list_components(family, as_json=json)


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="A registered name, e.g. badnets.")],
    image: Annotated[
        Path | None, typer.Option(help="Draw what an attack or trigger does into this .png, .svg or .pdf.")
    ] = None,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Explain one method: what it does, its paper, its settings and their defaults; or draw it.

    Example: bezoar show wanet --image wanet.png
    """
    from bezoar.cli import research  # noqa: PLC0415

    research.show(name, image=image, device=device, as_json=json)


@app.command()
def report(
    results: Annotated[list[Path], typer.Argument(help="Files of result rows (.jsonl) or result.json.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for report.html and rows.csv.")] = Path("bezoar-report"),
) -> None:
    """Draw tables and curves of result rows.

    Example: bezoar report results/demo/*.jsonl --out out
    """
    from bezoar.cli import research  # noqa: PLC0415

    research.report(results, out)


@app.command()
def check(
    name: Annotated[str, typer.Argument(help="A registered name, e.g. badnets.")],
    json: Json = False,
) -> None:
    """Hold a method to the common tests of its role; exit status 1 if it fails one.

    Example: bezoar check unlearning
    """
    from bezoar.cli import research  # noqa: PLC0415

    raise typer.Exit(0 if research.check(name, as_json=json) else 1)


def main() -> None:
    """Entry point of the ``bezoar`` command."""
    app()
