"""Crafting triggerless poisons: coefficients against forward-backward splitting, a step against the bare passes, the
time to an equal loss against one target after the other, and heads trained side by side against one by one.

The splitting is that of the paper (Zhu et al., Algorithm 1), with steps of 1 / L, and that of the released code, with
steps of 2 / L for an estimate of L, halved when the residual grows. Both start at 1 / k and end at a relative change of
1e-6 or after 10,000 steps. Features are those of a network that was trained for a moment, of real images.
"""

from __future__ import annotations

from functools import partial
from statistics import mean
from time import perf_counter
from typing import Any, Literal, NamedTuple

import torch
from pydantic import PrivateAttr
from timing import Report, Row, interleave, raw, seconds_of
from torch import Tensor, nn

from bezoar.attacks.convex_polytope import ConvexPolytope
from bezoar.attacks.crafting import Crafted, Layers, Pull
from bezoar.attacks.simplex import coefficients, onto_simplex
from bezoar.component import build
from bezoar.data.digits_in_the_wild import DigitsInTheWild
from bezoar.games.victims import Scene, fine_tuned
from bezoar.lab import Lab
from bezoar.models.classifier import Classifier, frozen
from bezoar.models.dropout import randomised
from bezoar.records import Dataset, Poison, as_float
from bezoar.roles import Architecture
from bezoar.seed import Seed
from bezoar.training.batches import batches
from bezoar.training.sgd import Sgd

NETWORKS = ("small_senet", "small_densenet", "small_mobilenet_v2")
PROBLEMS, VECTORS, TARGETS, VICTIMS = 900, 5, 10, 50
TOLERANCE, MOST = 1e-6, 10_000
Rule = Literal["paper", "released"]
RULES: dict[Rule, str] = {"paper": "steps of 1 / L", "released": "halving steps"}
SEED = Seed(0)
SETTINGS: dict[str, Any] = {"substitutes": [{"kind": name} for name in NETWORKS], "dropout": [0.2], "steps": 10_000}


def measure(*, quick: bool) -> Report:
    """All three comparisons in this process."""
    data = DigitsInTheWild(train=600 if quick else 2000, test=300).load(())
    recipe = Sgd(epochs=1 if quick else 4, batch_size=32, lr=0.1, schedule="one_cycle", augmentation="none")
    networks = [build(Architecture, {"kind": kind, "dropout": 0.2}) for kind in NETWORKS]
    models = [frozen(recipe.train(one, data.train, Lab(), SEED / one.kind)) for one in networks]
    rows = [
        *solving(models[0], data.test, 20 if quick else PROBLEMS, sample=2 if quick else 12),
        stepping(models, data.train, data.test, repeats=1 if quick else 5),
        reaching(models, data.train, data.test, steps=2 if quick else 100, one_by_one=1 if quick else 3),
        tuning(models[0], data.train, data.test, victims=2 if quick else VICTIMS, epochs=1 if quick else 60),
    ]
    settings: dict[str, Any] = {"networks": ", ".join(NETWORKS), "data": "digits_in_the_wild", "dropout": 0.2}
    return Report(settings | {"device": "cpu", "threads": torch.get_num_threads()}, rows)


def solving(model: Classifier, data: Dataset, count: int, sample: int) -> list[Row]:
    """So many problems of five vectors, all at once, against splitting of a sample of them."""
    with torch.no_grad():
        features = model.features(as_float(data.images()))
    draw = SEED.generator()
    chosen = torch.stack([torch.randperm(len(features), generator=draw)[: VECTORS + 1] for _ in range(count)])
    wanted, vectors = features[chosen[:, 0]], features[chosen[:, 1:]]
    split: dict[str, list[tuple[Tensor, int]]] = {}

    def ours() -> None:
        for _ in range(10):
            coefficients(wanted[:, None] - vectors)

    def theirs(rule: Rule) -> None:
        few = zip(wanted[:sample], vectors[:sample], strict=True)
        split[rule] = [splitting(several.T, target, rule) for target, several in few]

    sides = {"exact": partial(seconds_of, ours)} | {rule: partial(seconds_of, partial(theirs, rule)) for rule in RULES}
    times = interleave(sides, 3)
    own = times["exact"].best / 10 / count
    exact = _squared(vectors[:sample], wanted[:sample], coefficients(wanted[:, None] - vectors)[:sample])
    rows: list[Row] = []
    for rule, name in RULES.items():
        each, steps = times[rule].best / sample, [taken for _, taken in split[rule]]
        other = _squared(vectors[:sample], wanted[:sample], torch.stack([found for found, _ in split[rule]]))
        above = float(((exact - other) / wanted[:sample].square().sum(1)).max())
        worse = float(((other - exact) / wanted[:sample].square().sum(1)).max())
        rows += [
            Row(
                f"coefficients, k = {VECTORS}, {count} problems at once",
                f"{1e6 * own:.1f} us a problem",
                f"{1e3 * each:.1f} ms, splitting, {name}, {sum(steps) / sample:,.0f} steps",
                f"{each / own:,.0f}x",
                "at least 1,000x",
                {"seconds": [own, each], "steps": steps},
            ),
            Row(
                "... objective above splitting's, over the target's squared norm",
                f"{above:.1e} at most",
                f"{worse:.1e} above ours at most",
                aim="never above, to rounding",
            ),
        ]
    return rows


def splitting(vectors: Tensor, wanted: Tensor, rule: Rule, start: Tensor | None = None) -> tuple[Tensor, int]:
    """Forward-backward splitting for one problem, vectors [d, k], from 1 / k or `start`: coefficients and steps."""
    if rule == "paper":
        step = 1 / float(torch.linalg.matrix_norm(vectors.T @ vectors, 2))
    else:
        probe = torch.randn(vectors.shape[1], generator=SEED.generator())
        step = 2 / float((vectors.T @ (vectors @ probe)).norm() / probe.norm())
    here = torch.full((vectors.shape[1],), 1 / vectors.shape[1]) if start is None else start
    residual = float((vectors @ here - wanted).norm())
    for taken in range(1, MOST + 1):
        ahead = here - step * (vectors.T @ (vectors @ here - wanted))
        if rule == "released":
            grown = float((vectors @ ahead - wanted).norm())
            step = step / 2 if grown > residual else step
            residual = grown
        following = onto_simplex(ahead[None])[0]
        change = float((following - here).norm() / here.norm())
        here = following
        if change < TOLERANCE:
            return here, taken
    return here, MOST


def _squared(vectors: Tensor, wanted: Tensor, chosen: Tensor) -> Tensor:
    return ((chosen[..., None] * vectors).sum(1) - wanted).square().sum(1)


def begun(attack: ConvexPolytope, models: list[Classifier], train: Dataset, targets: Dataset) -> Crafted:
    """Poisons before their first step."""
    rows = (train.labels == 8).nonzero()[:VECTORS, 0]
    return attack.begin(train.batch(rows), rows, targets.images(), Lab(substitutes=tuple(models)), SEED)


def stepping(models: list[Classifier], train: Dataset, test: Dataset, repeats: int) -> Row:
    """One step for ten targets against nothing but the passes through the substitutes and back to the pixels."""
    targets = test.take((test.labels == 6).nonzero()[:TARGETS, 0])
    live = begun(ConvexPolytope.model_validate(SETTINGS), models, train, targets)
    pixels = live.pixels.clone().requires_grad_()
    keys = torch.arange(len(targets) * VECTORS)

    def passes() -> None:
        for number, model in enumerate(models):
            with randomised(model, keys + number):
                outputs = model.layers(pixels.flatten(0, 1), 1)
            torch.autograd.grad(outputs[0], pixels, torch.ones_like(outputs[0]))

    def step() -> None:
        live.advance(0)

    step()
    times = interleave({"step": lambda: seconds_of(step), "passes": lambda: seconds_of(passes)}, 4 * repeats)
    best = times["step"].best / times["passes"].best
    return Row(
        f"a step of convex_polytope, {TARGETS} targets, {VECTORS} poisons, {len(models)} networks",
        f"{1e3 * times['step'].median:.0f} ms (best {1e3 * times['step'].best:.0f})",
        f"{1e3 * times['passes'].median:.0f} ms (best {1e3 * times['passes'].best:.0f}), passes",
        f"{times['step'].median / times['passes'].median:.2f} passes (best {best:.2f})",
        "at most 1.15",
        raw(times["step"], times["passes"]),
    )


class Published(ConvexPolytope):
    """Convex Polytope with coefficients split problem by problem, each from where the step before left it."""

    _kept: dict[int, Tensor] = PrivateAttr(default_factory=dict[int, Tensor])
    _calls: int = PrivateAttr(default=0)

    def pull(self, outputs: Layers, wanted: Layers) -> Pull:
        """The loss of one network and its gradient, with the coefficients of one target after the other."""
        network = self._calls % len(self.networks)
        self._calls += 1
        vectors, target = outputs[-1].flatten(2), wanted[-1].flatten(1)
        before = self._kept.get(network, [None] * len(target))
        found = [splitting(a.T, b, "released", start)[0] for a, b, start in zip(vectors, target, before, strict=True)]
        chosen = self._kept[network] = torch.stack(found)
        rest = (chosen[..., None] * vectors).sum(1) - target
        squared = target.square().sum(1)
        gradient = chosen[..., None] * (rest / squared[:, None])[:, None]
        return Pull(rest.square().sum(1) / squared / 2, [gradient.view_as(outputs[-1])])


def reaching(models: list[Classifier], train: Dataset, test: Dataset, steps: int, one_by_one: int) -> Row:
    """Seconds a target until Eq. 3's loss, in float32, is as low as the worse of both sides gets in so many steps."""
    targets = test.take((test.labels == 6).nonzero()[:TARGETS, 0])
    together = _course(begun(ConvexPolytope.model_validate(SETTINGS), models, train, targets), steps)
    ours, theirs = [], []
    for number in range(one_by_one):
        one = begun(Published.model_validate(SETTINGS), models, train, targets.take(torch.tensor([number])))
        alone = _course(one, steps)
        level = max(float(course.losses[:, which].min()) for course, which in ((together, number), (alone, 0)))
        ours.append(together.until(number, level) / len(targets))
        theirs.append(alone.until(0, level))
    return Row(
        f"a target's poisons, to an equal loss of Eq. 3 within {steps} steps, {len(models)} networks",
        f"{mean(ours):.2f} s, {len(targets)} targets at once",
        f"{mean(theirs):.2f} s, one target after the other with splitting as released",
        f"{mean(theirs) / mean(ours):.1f}x",
        raw={"together": ours, "one_by_one": theirs},
    )


class Course(NamedTuple):
    """Losses after each step, float [steps, t], and the seconds from the start, float [steps]."""

    losses: Tensor
    seconds: Tensor

    def until(self, target: int, level: float) -> float:
        """Seconds until the loss of a target was first at the level."""
        return float(self.seconds[(self.losses[:, target] <= level).nonzero()[0, 0]])


def _course(live: Crafted, steps: int) -> Course:
    started, losses, seconds = perf_counter(), [], []
    for number in range(steps):
        live.advance(number)
        losses.append(live.losses.clone())
        seconds.append(perf_counter() - started)
    return Course(torch.stack(losses), torch.tensor(seconds))


def tuning(model: Classifier, train: Dataset, test: Dataset, victims: int, epochs: int) -> Row:
    """Heads of all victims in one run, against fine-tuning each by itself with features from the network every time."""
    rows = torch.cat([(train.labels == label).nonzero()[:20, 0] for label in range(10)])
    clean = train.take(rows)
    bases = (clean.labels == 8).nonzero()[:VECTORS, 0]
    images = clean.batch(bases)
    poisons = [Poison(bases, images, torch.full((VECTORS,), 8)) for _ in range(victims)]
    scene = Scene(model, clean, poisons, test.take(torch.arange(victims)), test, 8)

    def ours() -> None:
        fine_tuned(scene, "linear", epochs, Lab(), SEED)

    def one() -> None:
        victim = model.copy()
        optimizer = torch.optim.Adam(victim.head.requires_grad_(True).parameters(), 0.1)
        for batch in batches(clean, 64, SEED, device=torch.device("cpu"), epochs=epochs):
            with torch.no_grad():
                features = victim.features(batch.images)
            loss = nn.functional.cross_entropy(victim.head(features), batch.labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            for part in as_float(test.images()).split(512):
                victim(part)

    times = interleave({"together": lambda: seconds_of(ours), "one": lambda: seconds_of(one)}, 3)
    faster = victims * times["one"].median / times["together"].median
    best = victims * times["one"].best / times["together"].best
    return Row(
        f"{victims} linear victims' heads, {len(clean)} images, {epochs} epochs",
        str(times["together"]),
        f"{victims} x {times['one']}",
        f"{faster:.0f}x (best {best:.0f}x)",
        "at least 30x",
        raw(times["together"], times["one"]) | {"victims": victims},
    )
