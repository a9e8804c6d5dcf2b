"""Randomized smoothing against adversarial-robustness-toolbox: images certified a second, and the memory it takes.

Same weights, images, threads, sigma, alpha, number of noisy copies that choose the class (100) and that vouch for it.
The other library is asked with its own batch of 32 and with ours. Faster certificates that say something else would
be no gain, so the mean radius of both sides stands beside the seconds.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from peer import ART, Peer, PeerError
from safetensors.torch import save_file
from timing import Report, Row, Timing, interleave, ratio, raw, seconds_of

from bezoar.certifiers.smoothing import Smoothing
from bezoar.data.digits_in_the_wild import DigitsInTheWild
from bezoar.lab import Lab
from bezoar.models.classifier import Classifier
from bezoar.models.files import save_model
from bezoar.models.foreign import parse_architecture
from bezoar.records import Dataset, as_float, as_stored
from bezoar.seed import Seed
from bezoar.training.sgd import Sgd

NETWORKS = {"two_convolutions": "small_networks:two_convolutions", "small_resnet": "small_resnet"}
SIGMA = 0.12
MANY = 100_000
MEMORY = """
import json, sys
from pathlib import Path
import torch
from peaks import grown
from safetensors.torch import load_file
from bezoar.certifiers.smoothing import Smoothing
from bezoar.lab import Lab
from bezoar.models.files import load_model
from bezoar.models.foreign import parse_architecture
from bezoar.seed import Seed
job, draws = Path(sys.argv[1]), int(sys.argv[2])
torch.set_num_threads(json.loads((job / "settings.json").read_text())["threads"])
image = load_file(job / "images.safetensors")["images"][:1].float() / 255
model = load_model(job / "two_convolutions", architecture=parse_architecture("small_networks:two_convolutions")).model
Smoothing(draws=100).certify(model, image, Lab(), Seed(0))
print(grown(lambda: Smoothing(draws=draws).certify(model, image, Lab(), Seed(0))))
"""


@dataclass(frozen=True)
class Bench:
    """The models, the images float [n, 3, 32, 32], how they are certified, and the folder that the peer reads."""

    models: dict[str, Classifier]
    images: torch.Tensor
    smoothing: Smoothing
    job: Path


def measure(*, quick: bool) -> Report:
    """Time both sides in turn on each network, and ask either for its peak of memory."""
    count, repeats = (2, 1) if quick else (12, 3)
    with tempfile.TemporaryDirectory() as folder:
        bench = prepare(Path(folder), count, quick)
        try:
            peer: Peer | None = Peer(bench.job, ART)
        except PeerError as error:
            sys.stderr.write(f"  {error}\n")
            peer, against = None, f"nothing, because: {error}"
        else:
            against = f"adversarial-robustness-toolbox {peer.versions['art']}, torch {peer.versions['torch']}"
        rows = [row for name in bench.models for row in compare(name, bench, peer, repeats)]
        rows += memory(bench, peer, 10_000 if quick else MANY)
        if peer is not None:
            peer.close()
    settings = {
        "data": "digits_in_the_wild with noise",
        "images": count,
        "sigma": SIGMA,
        "alpha": bench.smoothing.alpha,
        "selection": bench.smoothing.selection,
        "draws": bench.smoothing.draws,
        "batch": bench.smoothing.batch_size,
        "workers": 0,
        "device": "cpu",
        "threads": torch.get_num_threads(),
        "repeats": repeats,
        "against": against,
    }
    return Report(settings, rows)


def prepare(job: Path, count: int, quick: bool) -> Bench:
    """Train the networks a little on noisy images, and lay the peer's job out."""
    splits = DigitsInTheWild(train=200 if quick else 2000, test=100).load(())
    train, images = noisy(splits.train), splits.test.images()[:count]
    models: dict[str, Classifier] = {}
    for name, described in NETWORKS.items():
        sys.stderr.write(f"  training {name} ...\n")
        architecture = parse_architecture(described)
        recipe = Sgd(epochs=1 if quick else 6, batch_size=32, lr=0.02, augmentation="none", schedule="one_cycle")
        models[name] = recipe.train(architecture, train, Lab(), Seed(0) / name)
        save_model(models[name], job / name, architecture=architecture, shape=train.shape, provenance={})
    smoothing = Smoothing(sigma=SIGMA, draws=100 if quick else 1000, radius=0.1)
    save_file({"images": images.contiguous()}, job / "images.safetensors")
    named = {name: described if ":" in described else None for name, described in NETWORKS.items()}
    settings = smoothing.describe() | {"threads": torch.get_num_threads(), "architectures": named}
    (job / "settings.json").write_text(json.dumps(settings))
    return Bench(models, as_float(images), smoothing, job)


def noisy(data: Dataset) -> Dataset:
    """The images with one draw of noise each, cut to 8 bits."""
    images = as_float(data.images())
    noise = torch.randn(images.shape, generator=(Seed(0) / "noise").generator())
    return Dataset.in_memory(as_stored(images + SIGMA * noise), data.labels, data.classes)


def compare(name: str, bench: Bench, peer: Peer | None, repeats: int) -> list[Row]:
    """Images certified a second by both sides, and their mean radius."""
    radii: dict[str, float] = {}

    def ours() -> float:
        def work() -> None:
            found = bench.smoothing.certify(bench.models[name], bench.images, Lab(), Seed(0))
            radii["bezoar"] = float(found.radius.mean())

        return seconds_of(work)

    def theirs(link: Peer, batch: int) -> float:
        answer = link.ask({"model": name, "images": len(bench.images), "draws": bench.smoothing.draws, "batch": batch})
        radii["art"] = sum(answer["radius"]) / len(answer["radius"])
        return float(answer["seconds"])

    sides: dict[str, Any] = {"bezoar": ours}
    if peer is not None:
        batches = {"batches of 32": 32, "our batches": bench.smoothing.batch_size}
        sides |= {title: partial(theirs, peer, batch) for title, batch in batches.items()}
    times = interleave(sides, repeats)
    count, own = len(bench.images), times.pop("bezoar")
    if peer is None:
        return [Row(f"certified, {name}", speed(count, own), "not installed", "", "3x")]
    rows = [
        Row(
            f"certified, {name}, against {title}",
            speed(count, own),
            speed(count, other),
            ratio(own, other),
            "3x",
            raw(own, other),
        )
        for title, other in times.items()
    ]
    return [*rows, Row("... mean radius", f"{radii['bezoar']:.4f}", f"{radii['art']:.4f}", "", "alike")]


def speed(count: int, timing: Timing) -> str:
    """Images a second, at the median and at best."""
    return f"{count / timing.median:.1f} images/s (best {count / timing.best:.1f})"


def memory(bench: Bench, peer: Peer | None, draws: int) -> list[Row]:
    """By how much the peak of memory of a fresh process grows while one image is certified."""
    grown: dict[int, int] = {}
    for number in (draws // 100, draws):
        command = [sys.executable, "-c", MEMORY, str(bench.job), str(number)]
        done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=Path(__file__).parent)
        grown[number] = int(done.stdout.split()[-1])
    rows: list[Row] = []
    for number, size in grown.items():
        against = "not installed"
        if peer is not None and number < draws:
            against = in_megabytes(_theirs(peer, number))
        elif peer is not None:
            against = f"{in_megabytes(_theirs(peer, number // 10))} at n = {number // 10:,}"
        rows.append(Row(f"peak memory of one image, n = {number:,}", in_megabytes(size), against, "", "does not grow"))
    return rows


def _theirs(peer: Peer, draws: int) -> int:
    return int(peer.ask({"model": "two_convolutions", "images": 1, "draws": draws, "batch": 128})["bytes"])


def in_megabytes(size: int) -> str:
    """For the table."""
    return f"{size / 1e6:.0f} MB"
