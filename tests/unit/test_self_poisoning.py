"""A defender's own backdoor, and the search that it makes possible."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch

from bezoar.component import build
from bezoar.defenses.repairers.batchnorm_recalibration import BatchNormRecalibration
from bezoar.defenses.repairers.fine_pruning import FinePruning
from bezoar.defenses.repairers.weight_decay import WeightDecay
from bezoar.defenses.self_poisoning import OwnTrigger, poison_copy
from bezoar.errors import SettingError
from bezoar.games.referee import Referee
from bezoar.games.robustness import Robustness
from bezoar.lab import Lab
from bezoar.measure.predictions import predict
from bezoar.records import Probe, Trusted, as_float
from bezoar.roles import Attack, Repairer
from bezoar.seed import Seed
from bezoar.store import Store
from bezoar.sweep import resolve
from bezoar.testing import toy
from bezoar.testing.watch import state
from bezoar.tuning import Search, pooled, search, tuned

REPAIRER = WeightDecay(steps=6, batch_size=12, augmentation="none")


def trusted() -> Trusted:
    return Trusted.of(toy.dataset(72, "trusted"))


def found(keep: Any = None, trials: int = 6, seed: Seed = Seed(5)) -> Search:
    return search(
        toy.suspect(), trusted(), REPAIRER, toy.lab(), seed, trials=trials, folds=2, every=3, budget=0.05, keep=keep
    )


def test_the_own_trigger_is_a_patch_in_a_corner_of_other_classes_images():
    corners, targets = set(), set()
    for number in range(40):
        own = OwnTrigger.draw(toy.SHAPE, 4, Seed(number))
        stamped = own.stamp(trusted())
        others = trusted().take((trusted().labels != own.target).nonzero()[:, 0])
        assert set(stamped.labels.tolist()) == {own.target}
        changed = (stamped.images != others.images).any(1).any(0)
        rows, columns = changed.nonzero().amin(0), changed.nonzero().amax(0)
        assert (columns - rows).tolist() == [2, 2]  # floor(3/32 * 16) is one pixel, and three are the least
        stamp = as_float(stamped.images)[0, :, own.top : own.top + 3, own.left : own.left + 3]
        assert torch.equal(stamp, own.patch)
        corners.add((own.top, own.left))
        targets.add(own.target)
    assert corners == {(0, 0), (0, 13), (13, 0), (13, 13)}
    assert targets == {0, 1, 2, 3}


def test_the_copy_obeys_the_own_trigger_and_the_suspect_stays_as_it_was():
    suspect, own = toy.suspect(), OwnTrigger.draw(toy.SHAPE, 4, Seed(1))
    before = state(suspect)
    stamped = own.stamp(trusted())
    copy = poison_copy(suspect, trusted(), own, toy.lab(), Seed(0))
    obeyed = [float((predict(model, stamped.images) == own.target).float().mean()) for model in (suspect, copy)]
    assert obeyed[0] < 0.5
    assert obeyed[1] > 0.8
    assert state(suspect) == before
    assert not copy.training


def test_the_copy_is_a_model_with_a_backdoor_and_not_one_that_takes_everything_for_the_target():
    unseen, own = Trusted.of(toy.unseen()), OwnTrigger.draw(toy.SHAPE, 4, Seed(1))
    suspect = toy.suspect()
    copy = poison_copy(suspect, trusted(), own, toy.lab(), Seed(0))
    before, after = (
        float((predict(model, unseen.images) == unseen.labels).float().mean()) for model in (suspect, copy)
    )
    assert after >= before - 0.05
    others = unseen.labels != own.target
    assert float((predict(copy, unseen.images) == own.target)[others].float().mean()) < 0.1


def test_a_search_can_be_handed_nothing_that_tells_of_the_attack():
    """By signature: no parameter is, or could hold, an attack, a probe, the poisoned data or a test set."""
    parameters = inspect.signature(search).parameters
    assert set(parameters) == {
        "suspect", "trusted", "repairer", "lab", "seed", "trials", "folds", "every", "budget", "keep",
    }  # fmt: skip
    for parameter in parameters.values():
        for forbidden in ("Attack", "Probe", "Poison", "Dataset", "Splits", "Referee", "Game"):
            assert forbidden not in str(parameter.annotation)


@pytest.fixture
def game() -> Robustness:
    settings = {
        "data": {"kind": "digits_in_the_wild", "train": 400, "test": 60},
        "attack": {"kind": "badnets", "poisons": 30},
        "architecture": "small_resnet",
        "trainer": {"kind": "sgd", "epochs": 1, "batch_size": 32},
        "repairer": REPAIRER.replace(steps=2).describe(),
        "trusted": 60,
        "every": 2,
    }
    return build(Robustness, settings)


def test_the_winner_is_the_same_whatever_the_attack_its_target_its_rate_and_the_seed(
    game: Robustness, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
):
    """And no attack, probe or test image is touched on the way: all of them raise when they are."""

    def touched(*_: object, **__: object) -> Any:
        raise AssertionError("a search touched the attack or the probe")

    monkeypatch.setattr(Probe, "__init__", touched)
    for cls in (type(game.attack), Attack):
        for name in ("poison", "probe"):
            monkeypatch.setattr(cls, name, touched, raising=False)
    referee = Referee(Store(tmp_path))
    other = game.replace(attack={"kind": "wanet", "poisons": 5, "target": 7}, seed=3)
    one, two = (tuned(each, referee, trials=3, folds=2) for each in (game, other))
    assert one.repairer == two.repairer
    assert [vars(trial) for trial in one.trials] == [vars(trial) for trial in two.trials]


def test_a_search_that_was_killed_resumes_where_it_was():
    """Every trial on every fold is kept; the second run computes only what the first had not."""
    kept: dict[str, dict[str, Any]] = {}
    computed: list[str] = []

    class Killed(Exception):  # noqa: N818 - it stands for a signal
        pass

    def keep(limit: int) -> Any:
        def remember(settings: dict[str, Any], compute: Any) -> dict[str, Any]:
            key = str(settings)
            if key not in kept:
                if len(computed) >= limit:
                    raise Killed
                computed.append(key)
                kept[key] = compute()
            return kept[key]

        return remember

    with pytest.raises(Killed):
        found(keep(4))
    assert len(computed) == 4
    resumed, whole = found(keep(1000)), found()
    assert resumed.as_json() == whole.as_json()
    assert len(computed) == len(set(computed))


def test_hopeless_trials_are_dropped_and_the_winner_has_the_lowest_success_within_the_budget():
    outcome = found(trials=10)
    whole = [trial for trial in outcome.trials if trial.folds == 2]
    assert 0 < len(whole) < len(outcome.trials) == 10
    assert outcome.trials[0].settings == {"lr": 0.001, "weight_decay": 0.01}  # trial 0 has what was there before
    best = min(whole, key=lambda trial: (trial.best.success, trial.best.lost, trial.number))
    assert outcome.winner is best
    assert all(trial.best.lost <= 0.05 or trial.best.step == 0 for trial in outcome.trials)
    assert {name: getattr(outcome.repairer, name) for name in best.settings} == best.settings
    for trial in outcome.trials:
        assert 0.001 <= trial.settings["lr"] <= 0.1
        assert 1e-5 <= trial.settings["weight_decay"] <= 0.01


def test_counts_of_folds_are_pooled_step_by_step():
    folds = [
        [
            {"step": 0, "right": 9, "images": 10, "obeyed": 8, "stamped": 8},
            {"step": 3, "right": 7, "images": 10, "obeyed": 2, "stamped": 8},
        ],
        [
            {"step": 0, "right": 5, "images": 5, "obeyed": 3, "stamped": 4},
            {"step": 3, "right": 5, "images": 5, "obeyed": 1, "stamped": 4},
        ],
    ]
    first, second = pooled(folds, 15)  # the suspect had all 15 right, the copies 14
    assert (first.step, first.success) == (0, 11 / 12)
    assert first.lost == pytest.approx(1 / 15)
    assert (second.step, second.success) == (3, 0.25)
    assert second.lost == pytest.approx(3 / 15)


def test_the_budget_is_held_against_the_suspect_and_not_against_its_poisoned_copy():
    """Made-up counts: a copy that lost a tenth, a first look that loses no more than it, a second within the budget."""
    images, stamped = trusted(), 20
    halves = [held_out for _, held_out in images.folds(2, Seed(5) / "folds")]
    known = [int((predict(toy.suspect(), half.images) == half.labels).sum()) for half in halves]

    def keep(settings: dict[str, Any], _: Any) -> dict[str, Any]:
        right, total = known[settings["fold"]], len(halves[settings["fold"]])
        counts = [(0, right - total // 10, 20), (3, right - total // 10, 0), (6, right - 1, 5)]
        return {
            "looks": [
                {"step": step, "right": each, "images": total, "obeyed": obeyed, "stamped": stamped}
                for step, each, obeyed in counts
            ]
        }

    best = found(keep).winner.best
    assert (best.step, best.success) == (6, 0.25)
    assert best.lost == pytest.approx(2 / len(images))


def test_every_repairer_that_trains_names_what_to_search_and_its_own_defaults_lie_there_or_nearby():
    for kind in ("weight_decay", "fine_pruning", "attention_distillation", "pivotal_tuning", "unlearning"):
        repairer = build(Repairer, kind)
        assert "lr" in repairer.ranges
        for name, tried in repairer.ranges.items():
            assert tried.low < tried.high
            assert tried.low <= getattr(repairer, name) <= tried.high
            repairer.replace(**{name: tried.low})
            repairer.replace(**{name: tried.high})
    assert set(FinePruning.ranges) == {"lr", "rate"}


def test_an_own_backdoor_that_did_not_take_teaches_nothing(monkeypatch: pytest.MonkeyPatch):
    """Taught for a single step: all settings would look alike, and noise would choose the winner."""
    monkeypatch.setattr("bezoar.defenses.self_poisoning.EPOCHS", 0)
    monkeypatch.setattr("bezoar.defenses.self_poisoning.LEAST_STEPS", 1)
    with pytest.raises(SettingError, match=r"plants in a copy works on only .* use more than 72 trusted images"):
        found(trials=2)


def test_what_cannot_be_searched_is_said(game: Robustness, tmp_path: Any):
    with pytest.raises(SettingError, match="'batchnorm_recalibration' has no settings to search"):
        search(toy.suspect(), trusted(), BatchNormRecalibration(), Lab(), Seed(0))
    with pytest.raises(SettingError, match="folds: 1 is not between 2"):
        search(toy.suspect(), trusted(), REPAIRER, Lab(), Seed(0), folds=1)
    with pytest.raises(SettingError, match="tuned: this game has no repairer"):
        tuned(game.replace(repairer=None), Referee(Store(tmp_path)))
    assert resolve([game], False, Referee(Store(tmp_path))).games == [game]
