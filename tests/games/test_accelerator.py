"""Every method on an accelerator: whole small games, and what must not depend on where it is computed.

The file is skipped where there is no accelerator. To try these tests themselves without one, set
``BEZOAR_TEST_DEVICE=cpu``; any other device is named in the same way.
"""

from __future__ import annotations

import json
import os
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, cast, get_args

import pytest
import torch

from bezoar.bounds.margins import Method, margins
from bezoar.bounds.precision import whole_floats
from bezoar.certifying import certify
from bezoar.cli.console import find_device
from bezoar.component import Component, build, members
from bezoar.data.folder import Pictures
from bezoar.games.game import Game
from bezoar.games.referee import Referee
from bezoar.lab import Lab
from bezoar.measure.predictions import clean_accuracy
from bezoar.models.classifier import Classifier, frozen
from bezoar.models.files import load_model, save_model
from bezoar.models.foreign import ForeignArchitecture
from bezoar.owner import audit, repair
from bezoar.records import Poison, as_float
from bezoar.roles import (
    Architecture,
    Certifier,
    CodePoisoning,
    DataPoisoning,
    DataSource,
    Detector,
    Repairer,
    Sanitizer,
    Splits,
    TargetedPoisoning,
    Trainer,
)
from bezoar.screening import screen
from bezoar.seed import Seed
from bezoar.store import Store
from bezoar.sweep import play
from bezoar.testing import NeedsSettingsError, instance, toy
from bezoar.training.sgd import Sgd

CHOSEN = os.environ.get("BEZOAR_TEST_DEVICE")
DEVICE = find_device(CHOSEN or "auto")
CPU = torch.device("cpu")
SEED = Seed(5)

pytestmark = pytest.mark.skipif(CHOSEN is None and DEVICE.type == "cpu", reason="there is no accelerator here")

WORLD: dict[str, Any] = {
    "kind": "robustness",
    "data": {"kind": "digits_in_the_wild", "train": 160, "test": 40},
    "attack": {"kind": "badnets", "poisons": 6},
    "architecture": {"kind": "small_resnet", "width": 16, "stages": 1},
    "trainer": {"kind": "sgd", "epochs": 1, "batch_size": 40, "augmentation": "none"},
    "trusted": 24,
}
REPAIRED = {**WORLD, "every": 2, "folds": 2}
INSPECTED = {**WORLD, "kind": "detectability", "models": 1}
CERTIFIED = {
    **{**WORLD, "kind": "certification", "certifier": {"kind": "bounds", "methods": ["ibp"]}, "images": 2},
    **{"data": "digits", "architecture": {"kind": "convolutional", "hidden": 16}},  # larger images have dear bounds
}
TRANSFERRED: dict[str, Any] = {
    **{name: WORLD[name] for name in ("architecture", "trainer", "trusted")},
    "kind": "transfer",
    "data": {"kind": "digits_in_the_wild", "train": 400, "test": 40},
    "attack": {"kind": "convex_polytope", "substitutes": ["small_resnet"], "dropout": [0.2], "poisons": 2, "steps": 2},
    **{"pretraining": 12, "fine_tuning": 4, "targets": 2, "epochs": 2, "examined": 2, "repair_every": 1},
}


def ready(family: str, role: type[Component] = Component) -> list[Any]:
    """A cheap instance of each member that plays a role, as parameters; those that need their user are left out."""
    found: list[Any] = []
    for kind, cls in members(family).items():
        if not issubclass(cls, role) or issubclass(cls, ForeignArchitecture):
            continue
        try:
            found.append(pytest.param(instance(cls), id=kind))
        except NeedsSettingsError:
            continue
    return found


def in_low_precision(family: str, role: type[Component] = Component) -> list[Any]:
    """Those that can compute in bfloat16, which do."""
    chosen = [one for one in ready(family, role) if "precision" in type(one.values[0]).model_fields]
    return [pytest.param(one.values[0].replace(precision="bfloat16"), id=cast(str, one.id)) for one in chosen]


@pytest.fixture(scope="module")
def there(home: Path) -> Referee:
    """A referee on the accelerator, whose store is its own: addresses do not say on which device a stage was made."""
    return Referee(Store(home / "accelerator"), Lab(DEVICE))


def plays(referee: Referee, settings: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """Play a game, see that its row is finite numbers and names the device, and return the result."""
    described = {name: one.describe() if isinstance(one, Component) else one for name, one in changes.items()}
    row = play(build(Game, {**settings, **described}), referee)
    assert json.loads(json.dumps(row, allow_nan=False)) == row
    named = torch.cuda.get_device_name(DEVICE) if DEVICE.type == "cuda" else DEVICE.type
    assert row["provenance"]["device"] == named
    return row["result"]


@pytest.mark.parametrize("attack", [*ready("attacks", DataPoisoning), *ready("attacks", CodePoisoning)])
def test_every_backdoor_is_played(attack: Component, there: Referee) -> None:
    assert "suspect" in plays(there, WORLD, attack=attack)


@pytest.mark.parametrize("trigger", ready("triggers"))
def test_every_trigger_is_planted(trigger: Component, there: Referee) -> None:
    assert "suspect" in plays(there, WORLD, attack={"kind": "badnets", "poisons": 6, "trigger": trigger.describe()})


@pytest.mark.parametrize("attack", ready("attacks", TargetedPoisoning))
@pytest.mark.parametrize("transfer", ["linear", "end_to_end"])
def test_every_triggerless_attack_is_played(attack: Component, transfer: str, there: Referee) -> None:
    assert plays(there, TRANSFERRED, attack=attack, transfer=transfer)


@pytest.mark.parametrize("attack", in_low_precision("attacks", TargetedPoisoning))
def test_triggerless_attacks_craft_in_bfloat16(attack: Component, there: Referee) -> None:
    assert plays(there, TRANSFERRED, attack=attack)


@pytest.mark.parametrize("trainer", [*ready("trainers"), *in_low_precision("trainers")])
def test_every_trainer_is_played(trainer: Component, there: Referee) -> None:
    assert "twin" in plays(there, WORLD, trainer=trainer)


@pytest.mark.parametrize("architecture", ready("architectures"))
def test_every_architecture_is_played(architecture: Component, there: Referee) -> None:
    assert "twin" in plays(there, WORLD, architecture=architecture)


@pytest.mark.parametrize("repairer", ready("repairers"))
def test_every_repairer_is_played(repairer: Component, there: Referee) -> None:
    assert plays(there, REPAIRED, repairer=repairer)["repaired"]


@pytest.mark.parametrize("detector", ready("detectors"))
def test_every_detector_is_played(detector: Component, there: Referee) -> None:
    assert len(plays(there, INSPECTED, detector=detector)["poisoned"]) == 1


@pytest.mark.parametrize("sanitizer", ready("sanitizers"))
def test_every_sanitizer_is_played(sanitizer: Component, there: Referee) -> None:
    assert plays(there, WORLD, sanitizer=sanitizer)["sanitized"]["removed"] == 8


@pytest.mark.parametrize("guard", ready("guards"))
def test_every_guard_is_played(guard: Component, there: Referee) -> None:
    assert "guard" in plays(there, CERTIFIED, guard=guard)


@pytest.mark.parametrize("certifier", ready("certifiers"))
def test_every_certifier_is_played(certifier: Component, there: Referee) -> None:
    trainer = {"trainer": {"kind": "partition_ensemble", "trainer": WORLD["trainer"], "parts": 2}}
    assert "twin" in plays(there, CERTIFIED, certifier=certifier, **(trainer if certifier.kind == "voting" else {}))


@pytest.mark.parametrize("defence", ["sanitizer", "repairer", "detector"])
@pytest.mark.parametrize("transfer", ["linear", "end_to_end"])
def test_victims_of_triggerless_attacks_are_defended(defence: str, transfer: str, there: Referee) -> None:
    kinds = {"sanitizer": "deep_knn", "repairer": "weight_decay", "detector": "last_layer"}
    chosen = instance(members(f"{defence}s")[kinds[defence]])
    assert plays(there, TRANSFERRED, transfer=transfer, **{defence: chosen})


@cache
def digits() -> Splits:
    """A small world, on the CPU like all data."""
    return build(DataSource, {"kind": "digits_in_the_wild", "train": 400, "test": 200}).load(())


@cache
def trained(device: torch.device, precision: str = "float32") -> Classifier:
    """A model that has learnt something of the toy's classes."""
    recipe = build(Trainer, {**WORLD["trainer"], "epochs": 6, "batch_size": 16, "precision": precision})
    return recipe.train(toy.architecture(), toy.dataset(), Lab(device), SEED)


def test_training_twice_from_one_seed_gives_as_good_a_model() -> None:
    recipe = build(Trainer, {**WORLD["trainer"], "epochs": 8, "batch_size": 16, "schedule": "one_cycle", "lr": 0.05})
    architecture, data = build(Architecture, WORLD["architecture"]), digits()
    models = [recipe.train(architecture, data.train, Lab(where), SEED) for where in (DEVICE, DEVICE, CPU)]
    again, first, on_cpu = (clean_accuracy(model, data.test).value for model in models)
    assert abs(first - again) <= 0.1
    assert abs(first - on_cpu) <= 0.15


def test_training_in_bfloat16_leaves_weights_in_float32() -> None:
    model = trained(DEVICE, "bfloat16")
    assert {tensor.dtype for tensor in model.parameters()} == {torch.float32}
    assert clean_accuracy(model, toy.unseen()).value > 0.5


@pytest.mark.usefixtures("unchecked")  # checks of annotations cannot be compiled
def test_a_compiled_recipe_takes_the_steps_of_the_plain_one() -> None:
    recipe = build(Sgd, {**WORLD["trainer"], "epochs": 3, "batch_size": 14, "lr": 0.01})
    assert len(toy.dataset()) % 14, "an epoch ends in a smaller batch, which is not compiled"

    def losses(compiled: bool) -> list[float]:
        model = toy.architecture().build(toy.SHAPE, toy.CLASSES, SEED).to(DEVICE)
        run = recipe.replace(compile=compiled).run(model, toy.dataset(), Lab(DEVICE), SEED)
        return [float(step.loss) for step in run]

    assert losses(compiled=True) == pytest.approx(losses(compiled=False), abs=0.02)


@pytest.mark.parametrize("architecture", ready("architectures"))
def test_logits_are_those_of_the_cpu(architecture: Architecture) -> None:
    shape, images = (3, 32, 32), as_float(digits().test.images()[:8])
    model = frozen(architecture.build(shape, toy.CLASSES, SEED))
    with torch.no_grad(), whole_floats():
        expected, found = model(images), model.to(DEVICE)(images.to(DEVICE)).cpu()
    assert torch.allclose(found, expected, atol=1e-3 * max(1.0, float(expected.abs().max())))


@pytest.mark.parametrize("method", get_args(Method))
def test_bounds_of_margins_are_those_of_the_cpu_though_a_card_may_round(method: Method) -> None:
    images, labels = as_float(toy.unseen().images()[:4]), toy.unseen().labels[:4]

    def bounds(device: torch.device) -> torch.Tensor:
        model = frozen(trained(CPU)).to(device)
        return margins(model, images.to(device), labels.to(device), 0.01, method=method, steps=3).detach()

    expected, found = bounds(CPU), bounds(DEVICE)
    assert found.device.type == DEVICE.type
    assert torch.allclose(found.cpu(), expected, atol=1e-4 * max(1.0, float(expected.abs().max())))


@pytest.mark.parametrize("attack", ready("attacks", DataPoisoning))
def test_poison_lies_on_the_cpu_and_draws_do_not_depend_on_the_device(attack: DataPoisoning) -> None:
    def made(device: torch.device) -> Poison:
        lab = toy.armed(attack)
        surrogate = None if lab.surrogate is None else lab.surrogate.copy().to(device)
        return attack.poison(toy.dataset(), replace(lab, device=device, surrogate=surrogate), toy.SEED)

    expected, found = made(CPU), made(DEVICE)
    kept = {"rows": found.rows, "images": found.images, "labels": found.labels, **found.memory}
    assert {tensor.device.type for tensor in kept.values()} == {"cpu"}
    assert torch.equal(found.rows, expected.rows)
    assert torch.equal(found.labels, expected.labels)
    if attack.wanted_model is None and not attack.trains_recipe:  # no network has a part in it
        assert torch.equal(found.images, expected.images)


@pytest.mark.parametrize("sanitizer", ready("sanitizers"))
def test_ranked_rows_lie_on_the_cpu(sanitizer: Sanitizer) -> None:
    found = screen(trained(DEVICE), toy.dataset(), toy.unseen(), sanitizer, Lab(DEVICE), SEED, removed=0.1)
    assert {found.scores.device.type, found.order.device.type, found.removed.device.type} == {"cpu"}
    assert found.scores.isfinite().all()


@pytest.mark.parametrize("detector", ready("detectors"))
def test_an_owner_s_audit_is_plain_numbers(detector: Detector) -> None:
    found = audit(trained(DEVICE), toy.trusted(), detector, replace(toy.lab(), device=DEVICE), SEED)
    json.dumps(found.as_json(toy.CLASSES), allow_nan=False)
    kept = [found.inspection.scores, *found.inspection.evidence.values()]
    assert {tensor.device.type for tensor in kept} == {"cpu"}


@pytest.mark.parametrize("certifier", [one for one in ready("certifiers") if one.id != "voting"])
def test_a_user_s_certificates_lie_on_the_cpu(certifier: Certifier) -> None:
    data = toy.unseen()
    pictures = Pictures([Path(str(row)) for row in range(4)], data.labels[:4], data.batch)
    found = certify(frozen(trained(DEVICE)), pictures, certifier, Lab(DEVICE), SEED).certificates
    kept = (found.predicted, found.radius, found.certified, found.evidence, found.method)
    assert {tensor.device.type for tensor in kept} == {"cpu"}


@pytest.mark.parametrize("repairer", ready("repairers"))
def test_a_repaired_model_is_saved_and_read_again(repairer: Repairer, tmp_path: Path) -> None:
    lab = replace(toy.lab(), device=DEVICE)
    model = repair(trained(DEVICE), toy.trusted(), repairer, lab, SEED, every=1, folds=2).model
    save_model(model, tmp_path / "model", architecture=toy.architecture(), shape=toy.SHAPE, provenance={})
    images = toy.photographs()
    with torch.no_grad(), whole_floats():
        expected, found = model(images.to(DEVICE)).cpu(), load_model(tmp_path / "model").model(images)
    assert torch.allclose(found, expected, atol=1e-3 * max(1.0, float(expected.abs().max())))
