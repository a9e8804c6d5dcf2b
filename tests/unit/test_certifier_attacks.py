"""Attacks on certifiers: what they add to the data, and what test images carry."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from bezoar.attacks.adding import Adding, painted
from bezoar.attacks.certifier_codes import CertifierCodes, codes, smallest
from bezoar.attacks.certifier_ladder import CertifierLadder
from bezoar.attacks.label_conflict import LabelConflict
from bezoar.attacks.random_labels import RandomLabels
from bezoar.component import build
from bezoar.data.digits import Digits
from bezoar.errors import SettingError
from bezoar.lab import Lab
from bezoar.models.classifier import Classifier
from bezoar.models.resnet import SmallResNet
from bezoar.records import Dataset, Poison, as_float
from bezoar.roles import Architecture, Attack
from bezoar.seed import Seed
from bezoar.testing import toy
from bezoar.training.sgd import Sgd
from bezoar.triggers.grey_patch import GreyPatch

LADDER = CertifierLadder(poisons=40, amplitude=0.5)
ATTACKS = [LADDER, CertifierCodes(poisons=40), RandomLabels(poisons=40), LabelConflict(poisons=40)]


@pytest.fixture(scope="module")
def clean() -> Dataset:
    return Digits(train=400, test=50).load(()).train


def poisoned(attack: Adding, data: Dataset, seed: int = 0) -> Poison:
    return attack.poison(data, Lab(), Seed(seed))


def patches(images: Tensor, side: int) -> Tensor:
    return images[:, 0, :side, :side]


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.kind)
def test_points_are_added_and_nothing_is_replaced(attack: Adding, clean: Dataset):
    poison = poisoned(attack, clean)
    victim = poison.apply(clean)
    assert poison.added
    assert len(victim) == len(clean) + 40
    assert torch.equal(victim.images()[: len(clean)], clean.images())
    assert torch.equal(victim.labels[: len(clean)], clean.labels)
    assert torch.equal(victim.images()[len(clean) :], poison.images)
    assert torch.equal(victim.labels[len(clean) :], poison.labels)


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.kind)
def test_a_point_is_its_base_but_for_the_patch(attack: Adding, clean: Dataset):
    poison = poisoned(attack, clean)
    side = attack.mark(clean, {"amplitude": torch.tensor([0.5])}).side(8, 8)
    outside = torch.ones(8, 8, dtype=torch.bool)
    outside[:side, :side] = False
    assert torch.equal(poison.images[:, :, outside], clean.batch(poison.rows)[:, :, outside])


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.kind)
def test_every_test_image_carries_the_plain_patch_and_no_class_is_wanted(attack: Adding):
    test = Digits(train=20, test=60).load(()).test
    probe = attack.probe(test, {"amplitude": torch.tensor([0.5])}, Lab(), Seed(0))
    assert probe.rows.tolist() == list(range(60))
    assert set(probe.wanted.tolist()) == {-1}
    side = attack.mark(test, {"amplitude": torch.tensor([0.5])}).side(8, 8)
    expected = test.images()
    expected[:, :, :side, :side] = 128
    assert torch.equal(probe.images, expected)


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.kind)
def test_a_seed_draws_the_same_points_and_another_seed_others(attack: Adding, clean: Dataset):
    one, same, other = poisoned(attack, clean), poisoned(attack, clean), poisoned(attack, clean, 1)
    assert torch.equal(one.images, same.images)
    assert torch.equal(one.labels, same.labels)
    assert not torch.equal(one.rows, other.rows)


@pytest.mark.parametrize(
    ("grey", "gap", "low", "high"), [(0.5, None, 77, 178), (0.5, 0.3, 51, 204), (0.25, 0.1, 38, 89)]
)
def test_rungs_are_half_a_gap_from_the_grey_level_up_to_rounding(
    grey: float, gap: float | None, low: int, high: int, clean: Dataset
):
    """255 (g - d) and 255 (g + d), rounded; d is twice epsilon, 0.1, where nothing is said."""
    poison = poisoned(LADDER.replace(half_gap=gap, trigger={"grey": grey}), clean)
    assert set(patches(poison.images[:20], 3).flatten().tolist()) <= {low, low - 1}
    assert set(patches(poison.images[20:], 3).flatten().tolist()) <= {high, high + 1}
    assert abs(low / 255 - (grey - (gap or 0.2))) <= 1 / 255


@pytest.mark.parametrize("rungs", ["plain", "wide"])
def test_both_rungs_share_their_base_and_bases_are_distinct(rungs: str, clean: Dataset):
    poison = poisoned(LADDER.replace(rungs=rungs), clean)
    assert torch.equal(poison.rows[:20], poison.rows[20:])
    assert len(poison.rows[:20].unique()) == 20
    assert torch.equal(poison.images[:20, :, 3:], poison.images[20:, :, 3:])


def test_wide_rungs_are_one_to_two_half_gaps_from_the_centre_on_both_sides(clean: Dataset):
    attack = LADDER.replace(rungs="wide", poisons=400, half_gap=0.2)
    greys = patches(poisoned(attack, clean).images, 1).flatten() / 255
    low, high = 0.5 - greys[:200], greys[200:] - 0.5
    assert torch.allclose(low, high, atol=1.01 / 255)
    assert 0.195 < float(low.min()) < 0.22
    assert 0.38 < float(low.max()) < 0.405
    clipped = attack.replace(half_gap=0.4)
    assert set(patches(poisoned(clipped, clean).images[:200], 1).flatten().tolist()) >= {0}


def test_the_upper_rung_has_another_label_and_the_lower_its_own(clean: Dataset):
    for relabel in ("next", "target", "random"):
        poison = poisoned(LADDER.replace(relabel=relabel, target=3, poisons=200), clean)
        own, upper = clean.labels[poison.rows[:100]], poison.labels[100:]
        assert torch.equal(poison.labels[:100], own)
        assert not bool((own == upper).any())
        pairs = set(zip(own.tolist(), upper.tolist(), strict=True))
        if relabel == "next":
            assert torch.equal(upper, (own + 1) % 10)
        elif relabel == "target":
            assert set(upper.tolist()) == {3}
        else:  # a permutation: ten classes, one successor each, all different
            assert len(pairs) == len({upper for _, upper in pairs}) == 10
            assert pairs != {(label, (label + 1) % 10) for label in range(10)}


@pytest.mark.parametrize(("count", "side"), [(10, 4), (15, 4), (4, 3), (3, 2), (7, 3), (100, 12)])
def test_codes_are_orthogonal_and_a_plain_patch_projects_to_zero_on_each(count: int, side: int):
    assert smallest(count) == side
    found = codes(count, side).flatten(1).double().numpy()
    pixels = 2 ** int(np.log2(side * side))
    assert np.array_equal(found @ found.T, pixels * np.eye(count))
    assert np.array_equal(found @ np.ones(side * side), np.zeros(count))


@pytest.mark.parametrize("relabel", ["target", "relative"])
def test_points_show_the_codes_in_turn_and_their_label_follows_from_the_code(relabel: str, clean: Dataset):
    """Second route: each patch is matched with all codes, and the best match names the code."""
    poison = poisoned(CertifierCodes(poisons=100, relabel=relabel), clean)
    shown = patches(poison.images, 4).flatten(1).double() / 255 - 0.5
    matches = shown @ codes(10, 4).flatten(1).double().T / 16
    assert torch.allclose(matches.max(1).values, torch.tensor(0.25).double(), atol=1 / 255)
    best = matches.argmax(1)
    assert best.tolist() == [point % 10 for point in range(100)]
    expected = best if relabel == "target" else (clean.labels[poison.rows] + best) % 10
    assert torch.equal(poison.labels, expected)
    assert len(poison.rows.unique()) == 100


@pytest.mark.parametrize(
    ("settings", "strength"),
    [({"sigma": 0.1}, 0.1), ({"sigma": 1.0}, 0.5), ({"amplitude": 0.3}, 0.3), ({"trigger": {"grey": 0.2}}, 0.2)],
)
def test_codes_are_as_strong_as_the_noise_unless_told_otherwise_or_without_room(
    settings: dict[str, object], strength: float, clean: Dataset
):
    images = poisoned(CertifierCodes(poisons=20).replace(**settings), clean).images
    spread = patches(images, 4).float()
    assert float(spread.max() - spread.min()) / 255 == pytest.approx(2 * strength, abs=1.01 / 255)


def test_random_labels_are_uniform_over_all_classes_whatever_the_image_shows(clean: Dataset):
    poison = poisoned(RandomLabels(poisons=400), clean)
    counts = poison.labels.bincount(minlength=10)
    assert int(counts.min()) >= 20
    assert int(counts.max()) <= 62
    assert 20 <= int((poison.labels == clean.labels[poison.rows]).sum()) <= 62


def test_a_conflict_gives_each_image_all_labels_or_its_own_and_the_opposite_one(clean: Dataset):
    every = poisoned(LabelConflict(poisons=45), clean)
    by_row = {row: sorted(every.labels[every.rows == row].tolist()) for row in every.rows.unique().tolist()}
    assert Counter(len(labels) for labels in by_row.values()) == {10: 4, 5: 1}
    assert all(labels == list(range(10)) for labels in by_row.values() if len(labels) == 10)
    pair = poisoned(LabelConflict(poisons=40, labels="pair"), clean)
    own = clean.labels[pair.rows[::2]]
    assert torch.equal(pair.rows[::2], pair.rows[1::2])
    assert torch.equal(pair.labels[::2], own)
    assert torch.equal(pair.labels[1::2], (own + 5) % 10)


def _lab() -> Lab:
    return Lab(architecture=SmallResNet(), trainer=Sgd(epochs=1, augmentation="none"))


def test_the_calibrated_level_has_the_lowest_certified_rate(clean: Dataset, monkeypatch: pytest.MonkeyPatch):
    seen: list[float] = []

    def rate(_: object, __: object, ___: object, rows: Tensor, grey: float) -> Tensor:
        seen.append(grey)
        assert len(rows) == 95  # a quarter of those that are no bases
        return torch.tensor(abs(grey - 0.62), dtype=torch.float64)

    monkeypatch.setattr(CertifierLadder, "_rate", rate)
    attack = LADDER.replace(amplitude=None)
    memory = attack.poison(clean, _lab(), Seed(0)).memory
    assert seen == pytest.approx(np.linspace(0.1, 0.9, 9).tolist())
    assert float(memory["amplitude"]) == pytest.approx(0.6)
    assert torch.equal(memory["tried"], torch.tensor(seen, dtype=torch.float64))
    assert memory["rates"].tolist() == pytest.approx([abs(grey - 0.62) for grey in seen])
    test = Digits(train=20, test=20).load(()).test
    assert set(patches(attack.probe(test, memory, Lab(), Seed(0)).images, 1).flatten().tolist()) == {153}


def test_of_levels_that_are_equally_good_the_one_nearest_to_the_centre_is_taken(
    clean: Dataset, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(CertifierLadder, "_rate", lambda *_: torch.tensor(0.25, dtype=torch.float64))
    memory = LADDER.replace(amplitude=None, trigger={"grey": 0.4}).poison(clean, _lab(), Seed(0)).memory
    assert float(memory["amplitude"]) == pytest.approx(0.4)
    assert memory["tried"].tolist() == pytest.approx(np.linspace(0, 0.8, 9).tolist())


def test_the_surrogate_learns_the_poisoned_data_without_the_images_it_is_calibrated_on(
    clean: Dataset, monkeypatch: pytest.MonkeyPatch
):
    taught: list[Dataset] = []
    held: list[Tensor] = []

    class Watched(Sgd):
        def train(self, architecture: Architecture, data: Dataset, lab: Lab, seed: Seed) -> Classifier:
            assert lab.architecture == architecture
            taught.append(data)
            assert architecture == SmallResNet(width=32)
            return SmallResNet(width=32).build(data.shape, data.classes, seed)

    monkeypatch.setattr(
        CertifierLadder, "_rate", lambda *given: held.append(given[3]) or torch.zeros((), dtype=torch.float64)
    )
    attack = LADDER.replace(amplitude=None, held_back=30, surrogate={"kind": "small_resnet", "width": 32})
    poison = attack.poison(clean, replace(_lab(), trainer=Watched()), Seed(0))
    assert all(torch.equal(rows, held[0]) for rows in held)
    assert len(held[0].unique()) == 30
    assert not set(held[0].tolist()) & set(poison.rows.tolist())
    rest = [row for row in range(400) if row not in held[0].tolist()]
    assert torch.equal(taught[0].images(), torch.cat([clean.batch(torch.tensor(rest)), poison.images]))
    assert taught[0].labels.tolist() == [*clean.labels[rest].tolist(), *poison.labels.tolist()]


@pytest.mark.parametrize("epsilon", [1e-9, 0.004, 1.0])
def test_a_certified_rate_lies_between_a_ball_that_is_a_point_and_one_that_is_every_image(epsilon: float):
    """Second route: sampled images of the ball; one with another answer is certified by nobody."""
    model, data = toy.suspect().eval(), toy.dataset(40)
    rows = torch.arange(40)
    attack = CertifierLadder(epsilon=epsilon, method="ibp")
    found = float(attack._rate(model, data, rows, 0.5))
    stamped = as_float(painted(data, rows, attack.trigger, torch.full((1, 1, 1), 0.5)))
    with torch.no_grad():
        answers = model(stamped).argmax(1)
        noise = [torch.rand(stamped.shape, generator=Seed(draw).generator()) * 2 - 1 for draw in range(20)]
        same = torch.stack([model((stamped + epsilon * each).clamp(0, 1)).argmax(1) == answers for each in noise])
    assert found <= float(same.all(0).double().mean())
    assert epsilon > 1e-6 or found == 1
    assert epsilon < 1 or found < 0.5


@pytest.mark.parametrize(
    ("settings", "reads", "trains"),
    [({}, True, True), ({"amplitude": 0.5}, False, False), ({"surrogate": "small_resnet"}, True, False)],
)
def test_a_ladder_depends_on_what_of_the_recipe_it_trains_with(settings: dict[str, object], reads: bool, trains: bool):
    attack = CertifierLadder().replace(**settings)
    assert (attack.reads_recipe, attack.trains_recipe) == (reads, trains)


def test_a_ladder_without_a_recipe_says_so(clean: Dataset):
    with pytest.raises(SettingError, match="no recipe"):
        poisoned(LADDER.replace(amplitude=None), clean)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "certifier_ladder", "epsilon": 0}, r"epsilon: .* greater than 0, but it is 0"),
        ({"kind": "certifier_codes", "sigma": -0.5}, r"sigma: .* greater than 0, but it is -0.5"),
        ({"kind": "certifier_ladder", "trigger": "warp"}, r"trigger: 'warp' cannot stand here"),
        ({"kind": "label_conflict", "labels": "three"}, r"labels: .* 'three'"),
    ],
)
def test_settings_out_of_range_are_refused_by_name(settings: dict[str, object], message: str):
    with pytest.raises(SettingError, match=message):
        build(Attack, settings)


@pytest.mark.parametrize(
    ("attack", "message"),
    [
        (LADDER.replace(poisons=7), r"attack\.poisons: 7 is odd, .* use 8"),
        (LADDER.replace(poisons=802), r"attack\.poisons: 802 points are made from 401 images, .* 400; use at most 800"),
        (LADDER.replace(half_gap=0.6), r"attack\.half_gap: rungs 0\.6 from a grey level of 0\.5 .* at most 0\.5"),
        (LADDER.replace(epsilon=0.3), r"attack\.half_gap: rungs 0\.6"),
        (LADDER.replace(target=10), r"attack\.target: there is no class 10"),
        (
            LADDER.replace(poisons=800, amplitude=None),
            r"attack\.poisons: 800 points leave 0 of 400 images to calibrate",
        ),
        (LADDER.replace(trigger={"size": 9}), r"trigger\.size: a patch of 9 pixels .* at most 8 do"),
        (CertifierCodes(poisons=401), r"attack\.poisons: 401 points .* use at most 400"),
        (
            CertifierCodes(poisons=9, trigger=GreyPatch(size=3)),
            r"trigger\.size: .* holds 7 codes, and 10 .* at least 4",
        ),
        (CertifierCodes(poisons=9, amplitude=0.6), r"attack\.amplitude: codes of 0\.6 .* use at most 0\.5"),
        (CertifierCodes(poisons=9, trigger=GreyPatch(grey=0)), r"trigger\.grey: 0 leaves no room for codes"),
    ],
)
def test_what_the_data_cannot_hold_is_refused_by_name(attack: Adding, message: str, clean: Dataset):
    with pytest.raises(SettingError, match=message):
        poisoned(attack, clean)


def test_more_classes_than_the_images_can_hold_codes_for_are_refused(clean: Dataset):
    many = replace(clean, classes=tuple(map(str, range(70))))
    with pytest.raises(SettingError, match=r"trigger\.size: a patch of 12 pixels does not fit images of 8x8"):
        poisoned(CertifierCodes(poisons=9), many)


def test_the_patch_grows_with_the_image_and_stands_in_its_corner():
    assert [GreyPatch().side(side, side) for side in (8, 16, 28, 32, 224)] == [3, 3, 4, 5, 32]
    stamped = GreyPatch(grey=0.75, size=2, corner="bottom_right").stamp(
        torch.zeros(1, 3, 8, 8), torch.tensor([0]), toy.lab(), toy.SEED
    )
    expected = torch.zeros(1, 3, 8, 8)
    expected[:, :, 6:, 6:] = 0.75
    assert torch.equal(stamped, expected)
