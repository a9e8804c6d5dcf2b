"""What should cost next to nothing: poisoning a data set, storing the poison, and looking at the help."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from statistics import median

import torch
from timing import Report, Row, interleave, seconds_of

from bezoar.attacks.badnets import BadNets
from bezoar.cli.console import data_folders
from bezoar.component import build, members
from bezoar.data.cifar10 import CLASSES, Cifar10
from bezoar.data.export import write_overlay
from bezoar.errors import DataError
from bezoar.games.referee import Made, Referee
from bezoar.lab import Lab
from bezoar.models.resnet import SmallResNet
from bezoar.records import Dataset
from bezoar.roles import DataPoisoning, Splits
from bezoar.seed import Seed
from bezoar.store import Store

HEAVY = ("torch", "torchvision", "transformers", "ray")
"""Packages that neither `import bezoar` nor `bezoar --help` may load."""

IMPORT = "import bezoar"
HELP = """
sys.argv = ["bezoar", "--help"]
from bezoar.cli import main
try:
    main()
except SystemExit:
    pass
"""


def measure(*, quick: bool) -> Report:
    """Poisoning, the artefact's bytes, the help's wall time, and what is imported for it."""
    repeats = 2 if quick else 7
    count = 500 if quick else 50_000
    name, data = load(count)
    rows = [
        *poisoning(data, repeats),
        *overlays(data, repeats),
        helping(repeats),
        *(importing(what) for what in ("import bezoar", "--help")),
    ]
    return Report({"data": name, "images": count, "poisons": 50, "repeats": repeats}, rows)


def load(count: int) -> tuple[str, Dataset]:
    """CIFAR-10 if it lies in a folder of BEZOAR_DATA, else random pixels of its size; `count` of them, in memory."""
    if os.environ.get("BEZOAR_DATA"):
        try:
            return "cifar10", Cifar10(train=count, test=1).load(data_folders([])).train
        except DataError:
            pass
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (count, 3, 32, 32), dtype=torch.uint8, generator=generator)
    return "random pixels of CIFAR-10's size", Dataset.in_memory(pixels, torch.arange(count) % 10, CLASSES)


def poisoning(data: Dataset, repeats: int) -> list[Row]:
    """The attack alone, the whole stage with its artefact written, and the artefact's size."""
    attack, lab = BadNets(poisons=50), Lab()
    attack.poison(data, lab, Seed(0))
    with tempfile.TemporaryDirectory() as folder:
        referee = Referee(Store(Path(folder)), lab)
        made = Made(Splits(data, data), "0" * 32)
        alone = [1000 * seconds_of(lambda: attack.poison(data, lab, Seed(0))) for _ in range(repeats)]
        # another seed each time, or the store would answer
        stage = [
            1000 * seconds_of(lambda seed=seed: referee.collect(made, attack, Seed(seed))) for seed in range(repeats)
        ]
        written = sum(path.stat().st_size for path in Path(folder).glob("store/??/*/*")) / repeats
    return [
        Row("poisoning, BadNets m = 50", milliseconds(alone), "", "", "< 100 ms", {"milliseconds": alone}),
        Row("the same, written to the store", milliseconds(stage), "", "", "< 100 ms", {"milliseconds": stage}),
        Row("the artefact on disk", f"{written / 1000:.0f} KB", "", "", "< 300 KB", {"bytes": written}),
    ]


def overlays(data: Dataset, repeats: int) -> list[Row]:
    """Every data poisoning at m = 500: choosing, stamping and writing its overlay, and the bytes on disk.

    Where an attack wants a surrogate it is handed an untrained small ResNet: what is timed is what the attack
    does with one, not how one comes by it.
    """
    surrogate = SmallResNet(stages=3).build(data.shape, data.classes, Seed(0)).eval().requires_grad_(False)
    lab = Lab(surrogate=surrogate)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        for name, cls in members("attacks").items():
            if not issubclass(cls, DataPoisoning):
                continue
            attack = build(DataPoisoning, {"kind": name, "poisons": min(500, len(data) // 20)})
            write = partial(_write, attack, data, lab, place / name)
            times = [seconds_of(partial(write, Seed(seed))) for seed in range(repeats)]
            size = sum(path.stat().st_size for path in (place / name).iterdir())
            rows.append(
                Row(
                    f"the overlay of {name}, m = {attack.poisons}",
                    f"{median(times):.2f} s (min {min(times):.2f}), {size / 1e6:.2f} MB",
                    against="",
                    aim="< 5 s, < 2 MB",
                    raw={"seconds": times, "bytes": size},
                )
            )
    return rows


def _write(attack: DataPoisoning, data: Dataset, lab: Lab, folder: Path, seed: Seed) -> None:
    write_overlay(attack.poison(data, lab, seed), folder, {})


def milliseconds(times: list[float]) -> str:
    """Median and minimum."""
    return f"{median(times):.1f} ms (min {min(times):.1f})"


def helping(repeats: int) -> Row:
    """`bezoar --help` against an interpreter that does nothing."""
    command = Path(sys.executable).with_name("bezoar")
    entry = [str(command)] if command.exists() else [sys.executable, "-c", "from bezoar.cli import main; main()"]
    times = interleave(
        {
            "bezoar --help": lambda: seconds_of(lambda: run([*entry, "--help"])),
            "python -c pass": lambda: seconds_of(lambda: run([sys.executable, "-c", "pass"])),
        },
        repeats,
    )
    shown, nothing = times["bezoar --help"], times["python -c pass"]
    return Row(
        "bezoar --help, against python -c pass",
        f"{shown.median:.2f} s (min {shown.best:.2f})",
        f"{nothing.median:.2f} s (min {nothing.best:.2f})",
        f"1/{shown.median / nothing.median:.0f}",
        "< 1 s",
        {"bezoar_seconds": shown.seconds, "against_seconds": nothing.seconds},
    )


def importing(what: str) -> Row:
    """How many modules are loaded, and which heavy packages are among them."""
    code = f"import sys, json\n{HELP if what == '--help' else IMPORT}\nsys.stderr.write(json.dumps(list(sys.modules)))"
    modules: list[str] = json.loads(run([sys.executable, "-c", code]))
    heavy = [name for name in HEAVY if name in modules]
    return Row(
        f"modules loaded by {'bezoar ' if what == '--help' else ''}{what}",
        f"{len(modules)}; {', '.join(heavy) or 'none'} of {', '.join(HEAVY)}",
        "",
        "",
        "none of them",
        {"modules": len(modules), "heavy": heavy},
    )


def run(command: list[str]) -> str:
    """What a command writes on stderr."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stderr
