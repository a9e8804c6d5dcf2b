"""Inverting the triggers of ten classes: bezoar's Neural Cleanse against TrojanZoo's, on the demo's two models.

Same weights, trusted images, batch size, threads, number of steps for each class, Adam settings and initial penalty.
bezoar plays twice: with all steps for all classes, and with half of them for all and the other half for the leading
class alone. A faster inversion that finds something else would be no gain, so what was found is reported beside it.
Where TrojanZoo cannot be installed, the plain sequential version at the end of this file takes its place.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from peer import TROJANZOO, Peer, PeerError
from safetensors.torch import load_file, save_file
from timing import Report, Row, Timing, interleave, ratio, raw, seconds_of
from torch import Tensor
from torch.nn import functional

from bezoar.cli.console import find_device
from bezoar.defenses.detectors.neural_cleanse import NeuralCleanse
from bezoar.defenses.inversion import answers
from bezoar.games.detectability import Detectability
from bezoar.games.referee import Referee
from bezoar.lab import Lab
from bezoar.measure.outliers import anomaly_index
from bezoar.models.classifier import Classifier, frozen
from bezoar.models.files import save_model
from bezoar.plans import read_game
from bezoar.records import Dataset, Trusted
from bezoar.seed import Seed
from bezoar.store import Store

REPEATS = {"poisoned": 2, "clean": 1}
QUICK = (
    *("data.train=400", "data.test=100", "attack.poisons=40", "trainer.epochs=1", "trusted=60"),
    *("architecture.stages=2", "detector.steps=10"),
)


@dataclass(frozen=True)
class Found:
    """What one side made of one model of k classes.

    Attributes:
        norms: float [k], the L1 norm of the mask, by which classes are compared.
        works: bool [k], whether the side itself calls the class's trigger one that works.
        patterns: float [k, c, h, w] in [0, 1].
        masks: float [k, 1, h, w] in [0, 1].
        steps: of all classes together.
    """

    norms: Tensor
    works: Tensor
    patterns: Tensor
    masks: Tensor
    steps: int


@dataclass(frozen=True)
class Bench:
    """Both models, what the defender holds, and the test images that judge the triggers."""

    models: dict[str, Classifier]
    trusted: Trusted
    held_out: Dataset
    detector: NeuralCleanse
    target: int
    device: torch.device


Side = Callable[[str], tuple[float, Found]]
"""A side: the name of a model -> seconds, and what was found."""


def measure(*, quick: bool) -> Report:
    """Time the three sides in turn on the poisoned model and on its clean twin."""
    game = read_game("demo", preset="detection", changes=QUICK if quick else ())
    assert isinstance(game, Detectability)
    with tempfile.TemporaryDirectory() as folder:
        job = Path(folder)
        # the demo's models, from the user's store if they are there; those of a trial run are not worth keeping
        bench = prepare(game, Referee(Store(job if quick else None), Lab(find_device("auto"))), job)
        try:
            peer: Peer | None = Peer(job, TROJANZOO)
        except PeerError as error:
            sys.stderr.write(f"  {error}\n")
            peer, reason = None, str(error)
        else:
            reason = f"trojanzoo {peer.versions['trojanzoo']}, torch {peer.versions['torch']}, in its own process"
        rows: list[Row] = []
        for name in bench.models:
            rows += compare(name, bench, peer, 1 if quick else REPEATS[name])
        if peer is not None:
            peer.close()
    settings = {
        "network": str(game.architecture),
        "data": str(game.data),
        "trusted": game.trusted,
        "steps": bench.detector.steps,
        "batch": bench.detector.batch_size,
        "classes": len(bench.trusted.classes),
        "workers": 0,
        "device": str(bench.device),
        "threads": torch.get_num_threads(),
        "against": reason if peer is not None else f"plain sequential Neural Cleanse, because: {reason}",
    }
    return Report(settings, rows)


def prepare(game: Detectability, referee: Referee, job: Path) -> Bench:
    """Train the twins or take them from the store, and lay the peer's job out."""
    seed = Seed(game.seed)
    deal = game.deal(referee, seed)
    data, trusted = deal.data, deal.trusted.value
    poison = referee.collect(data, game.attack, seed)
    sys.stderr.write("  the demo's poisoned model and its clean twin, trained unless stored ...\n")
    models = {
        "poisoned": referee.train(data, poison, game.recipe, seed).value,
        "clean": referee.train(data, None, game.recipe, seed).value,
    }
    detector = game.detector
    assert isinstance(detector, NeuralCleanse)
    for name, model in models.items():
        save_model(model, job / name, architecture=game.architecture, shape=data.value.train.shape, provenance={})
    save_file({"images": trusted.images.contiguous(), "labels": trusted.labels}, job / "trusted.safetensors")
    settings = detector.describe() | {"threads": torch.get_num_threads()}
    (job / "settings.json").write_text(json.dumps(settings))
    target = int(poison.value.labels[0])
    return Bench(models, trusted, data.value.test, detector, target, referee.lab.device)


def compare(name: str, bench: Bench, peer: Peer | None, repeats: int) -> list[Row]:
    """Seconds and findings of all sides on one model."""
    steps = bench.detector.steps
    half = bench.detector.replace(steps=steps // 2, refine=steps - steps // 2)
    against = "TrojanZoo" if peer is not None else "plain sequential"
    players: dict[str, Side] = {
        "all steps for all classes": partial(ours, bench, bench.detector),
        "half for all, half for the leader": partial(ours, bench, half),
        against: partial(plain, bench) if peer is None else partial(theirs, bench, peer),
    }
    found: dict[str, Found] = {}

    def play(side: str) -> float:
        seconds, found[side] = players[side](name)
        return seconds

    times: dict[str, Timing] = interleave({side: partial(play, side) for side in players}, repeats)
    rows: list[Row] = []
    for side in list(players)[:2]:
        both = {"bezoar": outcome(name, bench, found[side]), "against": outcome(name, bench, found[against])}
        numbers = {**raw(times[side], times[against]), "model": name, "found": both}
        what = f"inversion, {name} model, {side}"
        rows += [
            Row(what, str(times[side]), str(times[against]), ratio(times[side], times[against]), "3x", numbers),
            Row("... found", told(both["bezoar"]), told(both["against"])),
        ]
    return rows


def ours(bench: Bench, detector: NeuralCleanse, name: str) -> tuple[float, Found]:
    """The detector, timed from its first line to its last."""
    result: list[Found] = []

    def inspect() -> None:
        found = detector.inspect(bench.models[name], bench.trusted, Lab(bench.device), Seed(0) / "benchmark")
        assert found.triggers is not None
        assert found.masks is not None
        steps = detector.steps * len(bench.trusted.classes) + detector.refine
        works = found.evidence["success"] > 0  # 0 until a trigger is kept
        result.append(Found(found.evidence["norm"], works, found.triggers, found.masks, steps))

    return seconds_of(inspect, bench.device), result[0]


def theirs(bench: Bench, peer: Peer, name: str) -> tuple[float, Found]:
    """TrojanZoo, timed by itself without the talk between the processes."""
    del bench
    answer = peer.ask({"model": name})
    marks = load_file(peer.job / f"{name}-marks.safetensors")["marks"]
    works = torch.ones(len(marks), dtype=torch.bool)  # TrojanZoo does not ask
    return answer["seconds"], Found(marks[:, -1].sum((1, 2)), works, marks[:, :-1], marks[:, -1:], answer["steps"])


def plain(bench: Bench, name: str) -> tuple[float, Found]:
    """Neural Cleanse in a few lines, one class after the other, in PyTorch's default memory format."""
    model = frozen(bench.models[name]).to(memory_format=torch.contiguous_format)
    images = (bench.trusted.images.float() / 255).to(bench.device)
    made: list[Inverted] = []

    def invert_all() -> None:
        generator = torch.Generator().manual_seed(0)
        made.extend(invert(model, images, label, bench, generator) for label in range(len(bench.trusted.classes)))

    seconds = seconds_of(invert_all, bench.device)
    steps = bench.detector.steps * len(made)
    patterns, masks = (torch.stack(each).cpu() for each in ([one.pattern for one in made], [one.mask for one in made]))
    norms = torch.tensor([one.norm for one in made])
    return seconds, Found(norms, norms < images[0, 0].numel(), patterns, masks, steps)


@dataclass(frozen=True)
class Inverted:
    """One class's smallest trigger that worked; the norm of the whole image if none did."""

    norm: float
    pattern: Tensor
    mask: Tensor


def invert(model: Classifier, images: Tensor, label: int, bench: Bench, generator: torch.Generator) -> Inverted:
    """Wang et al.'s loop for one class, with the penalty's schedule of bezoar's detector."""
    detector = bench.detector
    raw_mask = (torch.randn(1, *images.shape[2:], generator=generator) * 0.5 - 1).to(bench.device).requires_grad_()
    raw_pattern = torch.randn(images.shape[1:], generator=generator).to(bench.device).requires_grad_()
    optimizer = torch.optim.Adam([raw_mask, raw_pattern], 0.1, betas=(0.5, 0.9))
    best = Inverted(float(raw_mask.numel()), raw_pattern.detach(), raw_mask.detach())
    cost, streak, hits, seen = 0.0, 0, 0.0, 0
    order = torch.empty(0, dtype=torch.int64)
    for step in range(1, detector.steps + 1):
        if not len(order):
            order = torch.randperm(len(images), generator=generator)
        rows, order = order[: detector.batch_size], order[detector.batch_size :]
        mask, pattern = raw_mask.tanh() / 2 + 0.5, raw_pattern.tanh() / 2 + 0.5
        batch = images[rows]
        logits = model(batch + mask * (pattern - batch))
        wanted = torch.full((len(rows),), label, device=bench.device)
        loss = functional.cross_entropy(logits, wanted) + cost * mask.sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        hits, seen = hits + float((logits.argmax(1) == label).sum()), seen + len(rows)
        if step % detector.round:
            continue
        works, hits, seen = hits / seen >= detector.threshold, 0.0, 0
        now = (raw_mask.detach().tanh() / 2 + 0.5, raw_pattern.detach().tanh() / 2 + 0.5)
        if works and float(now[0].sum()) < best.norm:
            best = Inverted(float(now[0].sum()), now[1], now[0])
        streak = max(streak, 0) + 1 if works else min(streak, 0) - 1
        if cost == 0 and works:
            cost, streak = detector.cost, 0
        elif abs(streak) >= detector.patience:
            cost, streak = (cost * 2 if works else cost / 2**1.5), 0
    return best


def outcome(name: str, bench: Bench, found: Found) -> dict[str, Any]:
    """The suspected class, how far it stands out, and its trigger's norm and success on images nobody has used."""
    suspected = int(found.norms.argmin())
    rows = (bench.held_out.labels != suspected).nonzero()[:, 0]
    shown = Trusted.of(bench.held_out.take(rows))
    mask, pattern = (each[suspected].to(bench.device) for each in (found.masks, found.patterns))
    logits = answers(frozen(bench.models[name]), shown, lambda images: images + mask * (pattern - images), bench.device)
    return {
        "suspected_class": suspected,
        "target_class": bench.target if name == "poisoned" else None,
        "anomaly_index": round(float(anomaly_index(found.norms)[suspected]), 2),
        "norm": round(float(mask.sum()), 1) if bool(found.works[suspected]) else None,
        "median_norm": round(float(found.norms.median()), 1),
        "success": round(float((logits.argmax(1) == suspected).float().mean()), 3),
        "steps": found.steps,
    }


def told(outcome: dict[str, Any]) -> str:
    """One outcome in a few words."""
    if outcome["norm"] is None:
        return f"no trigger that works; {outcome['steps']} class steps"
    target = "" if outcome["target_class"] is None else f" (target {outcome['target_class']})"
    return (
        f"class {outcome['suspected_class']}{target}, norm {outcome['norm']} (median {outcome['median_norm']}), "
        f"index {outcome['anomaly_index']}, success {outcome['success']:.2f}; {outcome['steps']} class steps"
    )
