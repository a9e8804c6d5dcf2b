"""What the attacks change in a data set, and what they leave alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from bezoar.attacks.adaptive import Adaptive
from bezoar.attacks.adaptive_blend import AdaptiveBlend
from bezoar.attacks.adaptive_patch import AdaptivePatch
from bezoar.attacks.adv_clean import AdvClean
from bezoar.attacks.clean_badnets import CleanBadNets
from bezoar.attacks.parameter_controlled import ParameterControlled, confine
from bezoar.attacks.refool import Refool
from bezoar.attacks.stamping import CleanLabel, Stamping, key_of
from bezoar.attacks.trigger_scattering import TriggerScattering
from bezoar.attacks.wanet import WaNet
from bezoar.component import build, members
from bezoar.errors import SettingError
from bezoar.games.referee import Made, Recipe, Referee
from bezoar.lab import Lab
from bezoar.models.classifier import Classifier
from bezoar.models.files import save_model
from bezoar.models.surrogates import Saved
from bezoar.records import as_float, as_stored
from bezoar.roles import Attack, Splits, Surrogate
from bezoar.seed import Seed
from bezoar.store import Store
from bezoar.testing import toy
from bezoar.training.sgd import Sgd
from bezoar.triggers.perturbation import Perturbation

CLEAN_LABEL = [CleanBadNets(poisons=9), Refool(poisons=9), WaNet(poisons=9), AdvClean(poisons=9)]


@pytest.mark.parametrize("attack", CLEAN_LABEL, ids=lambda attack: attack.kind)
def test_clean_label_attacks_repeat_their_poisons_and_change_no_label(attack: CleanLabel):
    clean, attack = toy.dataset(), attack.replace(boost=3, target=2)
    poison = attack.poison(clean, toy.armed(attack), toy.SEED)
    assert bool((clean.labels[poison.rows] == 2).all())
    victim = poison.apply(clean)
    assert len(victim) == 64 + 2 * 9
    assert torch.equal(victim.labels[:64], clean.labels)
    images = victim.images()
    for row, image in zip(poison.rows, poison.images, strict=True):
        assert int((images == image).flatten(1).all(1).sum()) == 3
        assert not torch.equal(image, clean.batch(row[None])[0])


def test_a_clean_label_attack_takes_no_more_than_its_class_has():
    with pytest.raises(SettingError, match=r"attack\.poisons: 17 is more than the 16 images .* at most 16"):
        WaNet(poisons=17).poison(toy.dataset(), toy.lab(), toy.SEED)


@pytest.mark.parametrize("conservatism", [0.0, 0.25, 0.5, 0.9])
@pytest.mark.parametrize("kind", [AdaptiveBlend, AdaptivePatch])
def test_conservatism_is_the_exact_share_of_poisons_with_true_labels(kind: type[Adaptive], conservatism: float):
    clean, attack = toy.dataset(), kind(poisons=21, conservatism=conservatism, target=1)
    poison = attack.poison(clean, toy.lab(), toy.SEED)
    truthful = poison.labels == clean.labels[poison.rows]
    assert int(truthful.sum()) == round(conservatism * 21)
    assert bool((poison.labels[~truthful] == 1).all())


def _shares(attack: AdaptiveBlend) -> Tensor:
    """The share of cells that each poisoned image carries, found in the images themselves."""
    clean = toy.dataset(400)
    poison = attack.poison(clean, toy.lab(), toy.SEED)
    changed = (poison.images != clean.batch(poison.rows)).any(1)
    cells = changed.unfold(1, 4, 4).unfold(2, 4, 4).flatten(3).any(-1)
    return cells.float().mean((1, 2))


def test_every_cell_is_left_out_with_the_probability_of_its_setting():
    shares = _shares(AdaptiveBlend(poisons=300, occlusion=0.3))
    assert 0.66 < float(shares.mean()) < 0.74
    counts = np.bincount((shares * 16).round().long().numpy(), minlength=17)
    expected = 300 * stats.binom.pmf(range(17), 16, 0.7)
    counts, expected = (np.array([each[:9].sum(), *each[9:14], each[14:].sum()]) for each in (counts, expected))
    assert stats.chisquare(counts, expected).pvalue > 0.001


def test_exactly_half_of_the_cells_are_left_out_if_one_asks_for_that():
    assert set(_shares(AdaptiveBlend(poisons=300, exact_half=True)).tolist()) == {0.5}


def test_test_images_carry_the_whole_trigger():
    attack = AdaptiveBlend(poisons=9)
    memory = attack.poison(toy.dataset(), toy.lab(), toy.SEED).memory
    probe = attack.probe(toy.unseen(), memory, toy.lab(), toy.SEED)
    images = as_float(toy.unseen().batch(probe.rows))
    assert torch.equal(probe.images, as_stored(attack.trigger.stamp(images, probe.rows, toy.lab(), toy.SEED)))


@pytest.mark.parametrize("attack", [WaNet(poisons=9), TriggerScattering(poisons=9)], ids=lambda attack: attack.kind)
def test_what_is_drawn_for_the_poison_is_the_trigger_at_test_time(attack: Stamping):
    """The referee hands other streams to `poison` and to `probe`; only the memory links them."""
    poison = attack.poison(toy.dataset(), toy.lab(), toy.SEED / "collect")
    probe = attack.probe(toy.unseen(), poison.memory, toy.lab(), toy.SEED / "probe")
    key, lab = key_of(poison.memory["key"]), toy.lab()
    test = as_float(toy.unseen().batch(probe.rows))
    train = as_float(toy.dataset().batch(poison.rows))
    assert torch.equal(probe.images, as_stored(attack.trigger.stamp(test, probe.rows, lab, key)))
    assert torch.equal(poison.images, as_stored(attack.trigger.stamp_training(train, poison.rows, lab, key)))
    assert sum(tensor.numel() for tensor in poison.memory.values()) == 1


@pytest.fixture
def referee(tmp_path: Path) -> Referee:
    made = Referee(Store(tmp_path))
    return made.publishing(Recipe(toy.architecture(), Sgd(epochs=1, batch_size=16)))


def pool() -> Made[Splits]:
    return Made(Splits(toy.dataset(), toy.unseen()), "toy")


@pytest.mark.parametrize("attack", [WaNet(poisons=9), AdvClean(poisons=9)], ids=lambda attack: attack.kind)
def test_poisoning_twice_through_the_store_is_poisoning_once(
    attack: Stamping, referee: Referee, monkeypatch: pytest.MonkeyPatch
):
    first = referee.collect(pool(), attack, Seed(0))
    monkeypatch.setattr(type(attack), "poison", lambda *_: pytest.fail("the poison was made twice"))
    again = referee.collect(pool(), attack, Seed(0))
    assert again.address == first.address
    assert torch.equal(again.value.images, first.value.images)
    once = first.value.apply(toy.dataset())
    assert torch.equal(first.value.apply(once).images(), once.images())


def test_the_surrogate_is_a_stage_of_its_own_and_never_part_of_a_poison(referee: Referee):
    attack = AdvClean(poisons=9)
    poison = referee.collect(pool(), attack, Seed(0)).value
    assert list(poison.memory) == ["key"]
    trained = [path for path in referee.store.root.glob("??/*/facts.json") if '"stage":"train"' in path.read_text()]
    assert len(trained) == 1
    referee.probe(pool(), attack, poison.memory, Seed(0))
    assert len([p for p in referee.store.root.glob("??/*/facts.json") if '"stage":"train"' in p.read_text()]) == 1


def test_only_attackers_are_handed_a_surrogate(referee: Referee):
    assert referee.lab.surrogate is None
    referee.collect(pool(), AdvClean(poisons=9), Seed(0))
    assert referee.lab.surrogate is None


def test_an_adversarial_trigger_must_not_lead_to_the_backdoor_s_own_target():
    attack = AdvClean(poisons=9, target=3)
    with pytest.raises(SettingError, match=r"attack\.trigger\.toward: 3 is the backdoor's target itself"):
        attack.poison(toy.dataset(), toy.armed(attack), toy.SEED)
    supplier = ParameterControlled(target=3)
    with pytest.raises(SettingError, match=r"attack\.trigger\.toward: 3"):
        supplier.supply(toy.dataset(), toy.armed(supplier), toy.SEED)


def test_a_saved_model_is_a_surrogate_and_images_of_another_size_are_resized_for_it(tmp_path: Path):
    save_model(toy.suspect(), tmp_path / "m", architecture=toy.architecture(), shape=toy.SHAPE, provenance={})
    saved = build(Surrogate, {"kind": "saved", "path": str(tmp_path / "m")})
    images = torch.rand(2, 3, 24, 20)
    model = saved.obtain((3, 24, 20), lambda: pytest.fail("a model was trained"))
    resized = torch.nn.functional.interpolate(images, (16, 16), mode="bilinear", align_corners=False)
    assert torch.allclose(model(images), toy.suspect().eval()(resized), atol=1e-5)
    assert not any(parameter.requires_grad for parameter in model.parameters())
    with pytest.raises(SettingError, match=r"surrogate\.path: .* takes images of 3 channel\(s\), these have 1"):
        saved.obtain((1, 16, 16), lambda: pytest.fail("a model was trained"))


def test_another_model_in_the_same_folder_is_another_surrogate(tmp_path: Path):
    folder, prints = tmp_path / "m", list[str]()
    for number in range(2):
        model = toy.architecture().build(toy.SHAPE, toy.CLASSES, Seed(number))
        save_model(model, folder, architecture=toy.architecture(), shape=toy.SHAPE, provenance={})
        prints.append(Saved(path=str(folder)).fingerprint())
    assert prints[0] != prints[1]


def test_a_code_poisoning_needs_a_recipe_it_can_imitate():
    attack = ParameterControlled()
    with pytest.raises(SettingError, match="needs a victim whose trainer is 'sgd'"):
        attack.supply(toy.dataset(), replace(toy.armed(attack), trainer=None), toy.SEED)


RECIPE = Sgd(epochs=2, batch_size=16, lr=0.1, augmentation="none", nesterov=True)


def _fresh() -> Classifier:
    return toy.architecture().build(toy.SHAPE, toy.CLASSES, Seed(0))


def _masks(model: Classifier) -> list[Tensor]:
    return ParameterControlled()._masks(model, Seed(3))


def _parameters(model: Classifier) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in model.parameters()]


def _buffers(model: Classifier) -> dict[str, Tensor]:
    return {name: buffer.clone() for name, buffer in model.named_buffers()}


def test_a_mask_holds_the_exact_share_of_every_tensor():
    model = _fresh()
    for mask, parameter in zip(_masks(model), model.parameters(), strict=True):
        assert mask.shape == parameter.shape
        assert int(mask.sum()) == max(1, round(0.1 * parameter.numel()))


def test_poisoned_steps_move_masked_entries_alone_and_no_statistics():
    """After each even step every unmasked entry and every buffer is bit for bit what it was before it."""
    model = _fresh()
    masks = _masks(model)
    poisoned = ParameterControlled()._poisoned(toy.dataset(), toy.armed(ParameterControlled()), Seed(1), Seed(2))
    even = RECIPE.run(
        model, poisoned, Lab(), Seed(4), training=False, prepare=lambda optimizer: confine(optimizer, masks)
    )
    odd = RECIPE.run(model, toy.dataset(), Lab(), Seed(5))
    moved = 0
    for _ in range(6):
        before, buffers = _parameters(model), _buffers(model)
        next(even)
        for mask, was, now in zip(masks, before, _parameters(model), strict=True):
            assert torch.equal(was[~mask], now[~mask])
            moved += int((was[mask] != now[mask]).sum())
        assert all(torch.equal(buffers[name], buffer) for name, buffer in _buffers(model).items())
        next(odd)
    assert moved > 0


def test_a_clean_step_knows_nothing_of_the_poisoned_ones():
    """Another run, which is only given the weights that poisoned steps left behind, takes the very same clean steps."""
    model = _fresh()
    masks = _masks(model)
    poisoned = ParameterControlled()._poisoned(toy.dataset(), toy.armed(ParameterControlled()), Seed(1), Seed(2))
    even = RECIPE.run(
        model, poisoned, Lab(), Seed(4), training=False, prepare=lambda optimizer: confine(optimizer, masks)
    )
    odd = RECIPE.run(model, toy.dataset(), Lab(), Seed(5))
    unaware = _fresh()
    alone = RECIPE.run(unaware, toy.dataset(), Lab(), Seed(5))
    for _ in range(5):
        next(even)
        with torch.no_grad():
            for mask, theirs, ours in zip(masks, unaware.parameters(), model.parameters(), strict=True):
                theirs[mask] = ours[mask]
        next(odd)
        next(alone)
        for name, value in model.state_dict().items():
            assert torch.equal(value, unaware.state_dict()[name]), name


def test_a_share_of_poisoned_images_is_exact_and_shows_the_target():
    attack = ParameterControlled(share=0.25, target=1)
    poisoned = attack._poisoned(toy.dataset(), toy.armed(attack), Seed(1), Seed(2))
    changed = (poisoned.images() != toy.dataset().images()).flatten(1).any(1)
    assert int(changed.sum()) == 16
    assert bool((poisoned.labels[changed] == 1).all())


def test_all_attacks_are_registered_with_their_papers():
    found = members("attacks")
    assert set(found) == {
        "badnets", "clean_badnets", "adaptive_blend", "adaptive_patch", "adv_clean", "refool", "wanet",
        "trigger_scattering", "parameter_controlled", "feature_collision", "convex_polytope", "bullseye_polytope",
        "certifier_ladder", "certifier_codes", "random_labels", "label_conflict",
    }  # fmt: skip
    assert all(cls.paper and issubclass(cls, Attack) for cls in found.values())
    assert Perturbation().wanted_model is not None
