"""The commands and their options, so that ``--help`` is instant: what a command does is imported when it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bezoar.cli.options import (
    As,
    Changes,
    Classes,
    Data,
    Device,
    Json,
    Model,
    Network,
    Numbers,
    Out,
    SeedNumber,
    Size,
    TrustedFolder,
)

commands = typer.Typer()


@commands.command()
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


@commands.command()
def audit(
    model: Model,
    trusted: TrustedFolder,
    architecture: Network = None,
    classes: Classes = None,
    mean: Numbers = None,
    std: Numbers = None,
    size: Size = None,
    detector: Annotated[str, typer.Option(help="Which detector; see 'bezoar list detectors'.")] = "cascade",
    power: Annotated[bool, typer.Option(help="Where nothing is found, ask whether something would have been.")] = True,
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
        model, trusted, network, detector, changes or [], power=power, out=out, seed=seed, device=device, as_json=json
    )
    raise typer.Exit(1 if suspicious else 0)


@commands.command()
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


@commands.command()
def certify(
    model: Model,
    images: Annotated[Path, typer.Option("--images", help="A folder of images, or one with a folder per class.")],
    architecture: Network = None,
    classes: Classes = None,
    mean: Numbers = None,
    std: Numbers = None,
    size: Size = None,
    method: Annotated[str, typer.Option(help="Which certifier; see 'bezoar list certifiers'.")] = "smoothing",
    quick: Annotated[bool, typer.Option("--quick", help="20 images at most: shows the way, proves little.")] = False,
    changes: Annotated[
        list[str] | None, typer.Argument(metavar="[FIELD=VALUE]...", help="Settings of the certifier: sigma=0.5")
    ] = None,
    out: Out = None,
    seed: SeedNumber = 0,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Say of which answers of a model it is proved that no small change of the image alters them.

    smoothing takes votes over noisy copies (L2, any network; train it with noise of the same sigma): radius=0.25,
    draws=10000 for larger radii. bounds computes with the layers of small networks (epsilon=0.03).

    What is certified is the model's own answer, right or wrong. Folders named after classes tell how many are right.
    With --out: result.json, report.html with the radius curve, and every image in certificates.csv and .parquet.

    Example: bezoar certify out/suspect --images out/trusted --out certified sigma=0.1 radius=0.1
    """
    from bezoar.cli import certifying, owning  # noqa: PLC0415

    network = owning.Network(architecture, classes, mean, std, size)
    asked = certifying.Asked(images, quick, method, changes or [], out)
    certifying.certify(model, network, asked, seed=seed, device=device, as_json=json)


@commands.command()
def poison(
    dataset: Annotated[str, typer.Argument(help="A registered data set, e.g. cifar10, or a folder of images.")],
    attack: Annotated[str, typer.Option("--attack", help="Which attack; see 'bezoar list attacks'.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for what the attack makes.")],
    changes: Changes = None,
    as_: As = None,
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


@commands.command("list")
def list_(
    family: Annotated[str | None, typer.Argument(help="attacks, repairers, detectors, ...; all by default.")] = None,
    json: Json = False,
) -> None:
    """Name the registered methods, with their papers.

    Example: bezoar list repairers
    """
    from bezoar.cli import research  # noqa: PLC0415

    research.list_components(family, as_json=json)


@commands.command()
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


@commands.command()
def report(
    results: Annotated[
        list[Path],
        typer.Argument(help="Files of result rows (.jsonl), a result.json, or folders, for every .jsonl below them."),
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder of the report.")] = Path("bezoar-report"),
) -> None:
    """Draw tables and curves of result rows: one HTML page, and every table and figure as a file.

    Example: bezoar report results/demo --out out
    """
    from bezoar.cli import reporting  # noqa: PLC0415

    reporting.report(results, out)


@commands.command()
def check(
    name: Annotated[str, typer.Argument(help="A registered name, e.g. badnets.")],
    json: Json = False,
) -> None:
    """Hold a method to the common tests of its role; exit status 1 if it fails one.

    Example: bezoar check unlearning
    """
    from bezoar.cli import research  # noqa: PLC0415

    raise typer.Exit(0 if research.check(name, as_json=json) else 1)
