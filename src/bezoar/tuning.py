"""Tuning a repair without an oracle: settings are tried on a copy of the model that the defender has poisoned itself.

What a search may see stands in the signature of `search`: a model, trusted images, a repairer. It is handed no attack,
no probe, no poison rate and no test set, so it cannot tune on them (Lukas & Kerschbaum, section V-C; spec 4.3).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from itertools import accumulate
from typing import Any

from bezoar.component import Settings
from bezoar.defenses.self_poisoning import TAKEN, OwnTrigger, identity, poison_copy
from bezoar.errors import SettingError
from bezoar.games.referee import Referee
from bezoar.games.repairing import watched
from bezoar.games.robustness import Robustness
from bezoar.lab import Lab
from bezoar.measure.predictions import predict
from bezoar.models.classifier import Classifier
from bezoar.records import Trusted
from bezoar.roles import Repairer
from bezoar.seed import Seed
from bezoar.slices import Slice

TRIALS, FOLDS = 20, 3
"""How many configurations ``tuned: true`` tries, and how many repairs judge each."""

TUNING_SEED = 1_000_000
"""A search that a game asks for uses models and images of this seed, which no game reports."""

Keep = Callable[[dict[str, Any], Callable[[], dict[str, Any]]], dict[str, Any]]
"""Something that remembers what a computation with some settings gave, so that a killed search resumes."""


@dataclass(frozen=True)
class Reading:
    """What one step of a repair did to the defender's copy, over all held-out images of all folds so far.

    Attributes:
        step: of the repair; 0 is the copy itself.
        success: share of held-out images with the defender's trigger that it still leads to its class.
        lost: accuracy on held-out images that is missing against the suspect, which the copy was made of.
    """

    step: int
    success: float
    lost: float


@dataclass(frozen=True)
class Trial:
    """One configuration that was tried.

    Attributes:
        number: in order, from 0; trial 0 has the settings that were there before.
        settings: the searched settings, name -> value.
        best: the reading with the lowest success within the budget of accuracy.
        folds: how many folds it was tried on; fewer than all if it was hopeless.
    """

    number: int
    settings: dict[str, float]
    best: Reading
    folds: int


@dataclass(frozen=True)
class Search:
    """All trials of a search and the repairer with the winner's settings."""

    trials: list[Trial]
    folds: int
    winner: Trial
    repairer: Repairer

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "repairer": self.repairer.describe(),
            "winner": self.winner.number,
            "folds": self.folds,
            "trials": [
                {"number": one.number, "settings": one.settings, "folds": one.folds, **vars(one.best)}
                for one in self.trials
            ],
        }


def search(
    suspect: Classifier,
    trusted: Trusted,
    repairer: Repairer,
    lab: Lab,
    seed: Seed,
    *,
    trials: int = TRIALS,
    folds: int = FOLDS,
    every: int = 50,
    budget: float = 0.02,
    keep: Keep | None = None,
) -> Search:
    """Find settings of a repairer on a copy of the model that the defender has poisoned itself.

    Every configuration repairs one copy for each fold of the trusted images, taught and repaired without that fold
    and judged by it; readings are pooled over folds step by step. Successive halving drops the hopeless ones after
    fewer folds. The winner has the lowest success within the budget, ties go to the smaller loss. The budget is held
    against the suspect, which is what is to be kept, not against the copy, which lost some accuracy while it was
    poisoned (docs/decisions/0008); a configuration that never stays within it counts with its unrepaired copy. Trial 0
    is the repairer as it was given, with the searched settings cut to their ranges. The search itself is
    deterministic: resumed with the same `keep` it goes the same way.

    Raises:
        SettingError: the search cannot be made (see `require_searchable`), or the defender's own backdoor did not
            take, so that nothing can be learnt from undoing it.
    """
    require_searchable(repairer, len(trusted), folds)
    import optuna  # noqa: PLC0415 - an extra

    optuna.logging.set_verbosity(optuna.logging.ERROR)  # it warns, at length, of a trial that was stopped
    channels, height, width = trusted.images.shape[1:]
    own = OwnTrigger.draw((channels, height, width), len(trusted.classes), seed / "trigger")
    parts = trusted.folds(folds, seed / "folds")
    known = list(accumulate(_right(suspect, held_out) for _, held_out in parts))
    judge = _Judge(suspect, parts, own, every, lab, seed, keep)
    finished: list[Trial] = []

    def objective(trial: optuna.Trial) -> float:
        settings = {
            name: trial.suggest_float(name, tried.low, tried.high, log=True) for name, tried in repairer.ranges.items()
        }
        candidate = repairer.replace(**settings)
        counts: list[list[dict[str, int]]] = []
        best = Reading(0, 1.0, 0.0)
        for number in range(folds):
            counts.append(judge.counts(candidate, number))
            readings = pooled(counts, known[number])
            _require_taken(readings[0], len(trusted))
            best = _best(readings, budget)
            trial.report(best.success, number + 1)
            if number + 1 < folds and trial.should_prune():
                break
        finished.append(Trial(trial.number, settings, best, len(counts)))
        return best.success

    study = optuna.create_study(
        sampler=optuna.samplers.TPESampler(seed=seed.integer() % 2**32),
        pruner=optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=2),
    )
    study.enqueue_trial(_within(repairer))
    for _ in lab.progress.track(range(trials), "search", trials):
        study.optimize(objective, n_trials=1)
    whole = [trial for trial in finished if trial.folds == folds]
    winner = min(whole, key=lambda trial: (trial.best.success, trial.best.lost, trial.number))
    return Search(finished, folds, winner, repairer.replace(**winner.settings))


def tuned(
    game: Robustness, referee: Referee, *, trials: int = TRIALS, folds: int = FOLDS, limit: Slice | None = None
) -> Search:
    """The search that a game's settings ask for: once for its data, recipe, number of trusted images and repairer.

    The model is a clean one of the victim's public recipe and the images are another draw, both of `TUNING_SEED`, so
    the winner is frozen for every attack and every seed of the game. Every trial is a stage of the store.

    Raises:
        SettingError: the game has no repairer, or one with nothing to search.
        TimeUpError: the slice is over before the search is; what it has tried is kept.
    """
    if game.repairer is None:
        raise SettingError("tuned: this game has no repairer")
    require_searchable(game.repairer, game.trusted, folds)
    referee = referee.publishing(game.recipe)
    seed = Seed(TUNING_SEED)
    deal = game.deal(referee, seed)
    model = referee.train(deal.data, None, game.recipe, seed)
    stream = seed / "tuning"
    inputs = {"model": model.address, "trusted": deal.trusted.address}

    def keep(settings: dict[str, Any], compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        return referee.measured("tune", {}, settings, inputs, stream, lambda: (limit or Slice()).run(compute))

    return search(
        model.value,
        deal.trusted.value,
        game.repairer,
        referee.lab,
        stream,
        trials=trials,
        folds=folds,
        every=game.every,
        budget=game.budget,
        keep=keep,
    )


def require_searchable(repairer: Repairer, trusted: int, folds: int) -> None:
    """See that a search can be made, before anything is computed for it.

    Raises:
        SettingError: the repairer names nothing to search, there are fewer images than folds, or optuna is missing.
    """
    if not repairer.ranges:
        raise SettingError(f"repairer: {repairer.kind!r} has no settings to search")
    if not 2 <= folds <= trusted:
        raise SettingError(f"folds: {folds} is not between 2 and the number of trusted images, {trusted}")
    if find_spec("optuna") is None:
        raise SettingError("a search needs optuna: pip install 'bezoar[tune]'")


def _within(repairer: Repairer) -> Settings:
    """The repairer's own values of the searched settings, cut to their ranges."""
    return {name: min(max(getattr(repairer, name), tried.low), tried.high) for name, tried in repairer.ranges.items()}


@dataclass
class _Judge:
    """Tries configurations fold by fold, each on a copy of the suspect that was poisoned without that fold."""

    suspect: Classifier
    parts: list[tuple[Trusted, Trusted]]
    own: OwnTrigger
    every: int
    lab: Lab
    seed: Seed
    keep: Keep | None
    copies: dict[int, Classifier] = field(default_factory=dict[int, Classifier])

    def counts(self, candidate: Repairer, number: int) -> list[dict[str, int]]:
        """For the copy and at every look: how many held-out images are right, and how many stamped ones obey."""
        settings = {
            "repairer": candidate.identity(),
            "fold": number,
            "folds": len(self.parts),
            "every": self.every,
            "own": identity(),
        }

        def compute() -> dict[str, Any]:
            return {"looks": self._looks(candidate, number)}

        return (compute() if self.keep is None else self.keep(settings, compute))["looks"]

    def _looks(self, candidate: Repairer, number: int) -> list[dict[str, int]]:
        rest, held_out = self.parts[number]
        if number not in self.copies:
            seed = self.seed / "copy" / number
            self.copies[number] = poison_copy(self.suspect, rest, self.own, self.lab, seed)
        copy, stamped = self.copies[number], self.own.stamp(held_out)

        def look(step: int, model: Classifier) -> dict[str, int]:
            return {
                "step": step,
                "right": _right(model, held_out),
                "images": len(held_out),
                "obeyed": _right(model, stamped),
                "stamped": len(stamped),
            }

        seed = self.seed / "fold" / number
        repairs = watched(candidate, copy, rest, self.every, self.lab, seed, name="trial")
        return [look(0, copy), *(look(step, model) for step, model in repairs)]


def _right(model: Classifier, images: Trusted) -> int:
    """How many images a model takes for what they are labelled."""
    return int((predict(model, images.images) == images.labels).sum())


def pooled(counts: Sequence[Sequence[dict[str, int]]], before: int) -> list[Reading]:
    """The readings of a configuration: counts of all folds added up, step by step; `before` the suspect had right."""
    sums: dict[int, Counter[str]] = {}
    for fold in counts:
        for look in fold:
            sums.setdefault(look["step"], Counter()).update({name: look[name] for name in look if name != "step"})
    return [
        Reading(step, each["obeyed"] / max(1, each["stamped"]), (before - each["right"]) / each["images"])
        for step, each in sorted(sums.items())
    ]


def _require_taken(copy: Reading, trusted: int) -> None:
    """Refuse to learn from undoing a backdoor that is not there."""
    if copy.success < TAKEN:
        raise SettingError(
            f"trusted: the backdoor that the defender plants in a copy works on only {copy.success:.0%} of held-out "
            f"images, so nothing can be learnt from undoing it; use more than {trusted} trusted images"
        )


def _best(readings: Sequence[Reading], budget: float) -> Reading:
    """The lowest success within the budget, or else the unrepaired copy, which is always at hand."""
    admissible = [one for one in readings if one.step == 0 or one.lost <= budget + 1e-9]
    return min(admissible, key=lambda one: (one.success, one.lost))
