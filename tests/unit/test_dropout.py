"""Dropout whose mask belongs to the image."""

from contextlib import suppress
from math import sqrt

import pytest
import torch
from torch import Tensor, nn

from bezoar.errors import SettingError
from bezoar.models.dropout import Dropout, dropping, randomised
from bezoar.models.resnet import SmallResNet
from bezoar.seed import Seed

RATES = (0.2, 0.25, 0.3)
SIGMAS = 5


def numbers(*shape: int, name: str = "numbers") -> Tensor:
    return torch.rand(*shape, generator=(Seed(0) / name).generator()) + 0.5


def kept(layers: nn.Module, keys: Tensor, *shape: int) -> Tensor:
    """Which activations stay, as float 0 or 1, at the end of the layers: [n, *shape]."""
    with randomised(layers, keys):
        return (layers(torch.ones(len(keys), *shape)) != 0).float()


def masks_of_layers(rate: float, keys: Tensor, count: int, *shape: int) -> list[Tensor]:
    """What each layer of a model keeps."""
    model = nn.ModuleList([Dropout(rate) for _ in range(count)])
    with randomised(model, keys):
        return [(layer(torch.ones(len(keys), *shape)) != 0).float() for layer in model]


def correlation(one: Tensor, other: Tensor) -> float:
    return float(torch.corrcoef(torch.stack([one.flatten(), other.flatten()]).double())[0, 1])


def spread_keys(count: int) -> Tensor:
    return torch.randint(-(2**63), 2**63 - 1, (count,), generator=(Seed(0) / "keys").generator())


KEYS = {
    "counted": torch.arange(256),
    "in the high half only": torch.arange(256) << 32,
    "negative": -torch.arange(256) - 1,
    "spread": spread_keys(256),
}


def test_in_training_mode_it_is_torch_s_own():
    inputs = numbers(16, 4, 5, 5)
    torch.manual_seed(0)
    here = Dropout(0.3)(inputs)
    torch.manual_seed(0)
    there = nn.Dropout(0.3)(inputs)
    assert torch.equal(here, there)
    assert 0.5 < (here != 0).float().mean() < 0.9


def test_in_evaluation_mode_it_is_the_identity():
    inputs = numbers(16, 4, 5, 5)
    assert torch.equal(Dropout(0.3).eval()(inputs), inputs)


@pytest.mark.parametrize("training", [True, False])
def test_a_rate_of_zero_is_always_the_identity(training: bool):
    inputs, layer = numbers(16, 4, 5, 5), Dropout(0.0).train(training)
    assert torch.equal(layer(inputs), inputs)
    with randomised(layer, torch.arange(16)):
        assert torch.equal(layer(inputs), inputs)
    assert isinstance(dropping(0.0), nn.Identity)
    assert isinstance(dropping(0.1), Dropout)


@pytest.mark.parametrize("rate", [-0.1, 1.0, float("nan")])
def test_a_rate_outside_its_range_is_refused(rate: float):
    with pytest.raises(SettingError, match=str(rate)):
        Dropout(rate)


@pytest.mark.parametrize("training", [True, False])
def test_within_randomised_what_stays_is_scaled_up_in_either_mode(training: bool):
    inputs, layer = numbers(16, 4, 5, 5), Dropout(0.25).train(training)
    with randomised(layer, torch.arange(16)):
        outputs = layer(inputs)
    dropped = outputs == 0
    assert 0.15 < dropped.float().mean() < 0.35
    assert torch.allclose(outputs[~dropped], inputs[~dropped] / 0.75)


def test_gradients_go_where_activations_stay():
    inputs, layer = numbers(8, 4, 5, 5).requires_grad_(), Dropout(0.25)
    with randomised(layer, torch.arange(8)):
        outputs = layer(inputs)
    (gradient,) = torch.autograd.grad(outputs.sum(), inputs)
    assert torch.allclose(gradient, torch.where(outputs == 0, 0.0, 1 / 0.75))


@pytest.mark.parametrize("keys", KEYS.values(), ids=KEYS)
@pytest.mark.parametrize("rate", RATES)
def test_the_share_that_stays_is_binomial(rate: float, keys: Tensor):
    for mask in masks_of_layers(rate, keys, 3, 16, 8, 8):
        wide = sqrt(rate * (1 - rate))
        assert abs(mask.mean() - (1 - rate)) < SIGMAS * wide / sqrt(mask.numel())
        of_keys, of_places = mask.mean(dim=(1, 2, 3)), mask.mean(dim=0)
        assert (of_keys - (1 - rate)).abs().max() < SIGMAS * wide / sqrt(16 * 8 * 8)
        assert (of_places - (1 - rate)).abs().max() < SIGMAS * wide / sqrt(len(keys))
        # and spread as wide as a binomial share is: a mask that were too regular would pass the bounds
        assert of_keys.std() == pytest.approx(wide / sqrt(16 * 8 * 8), rel=SIGMAS / sqrt(2 * len(keys)))


@pytest.mark.parametrize("keys", KEYS.values(), ids=KEYS)
def test_neighbouring_keys_places_and_layers_have_nothing_to_do_with_each_other(keys: Tensor):
    first, second, third = masks_of_layers(0.3, keys, 3, 16, 8, 8)
    pairs = {
        "keys": (first[:-1], first[1:]),
        "columns": (first[..., :-1], first[..., 1:]),
        "rows": (first[..., :-1, :], first[..., 1:, :]),
        "channels": (first[:, :-1], first[:, 1:]),
        "layers": (first, second),
        "layers, one between": (first, third),
        "a layer, and the next for the next key": (first[:-1], second[1:]),
    }
    for name, (one, other) in pairs.items():
        assert abs(correlation(one, other)) < SIGMAS / sqrt(one.numel()), name


def test_keys_that_differ_in_one_bit_have_other_masks():
    keys = torch.cat([torch.zeros(1, dtype=torch.int64), torch.ones(63, dtype=torch.int64) << torch.arange(63)])
    masks = kept(Dropout(0.3), keys, 8, 4, 4).flatten(1)
    assert len(masks.unique(dim=0)) == len(keys)
    table = torch.corrcoef(masks)
    assert table.fill_diagonal_(0).abs().max() < 6 / sqrt(128)


def test_the_same_key_has_the_same_mask():
    masks = kept(Dropout(0.3), torch.tensor([5, 6, 5]), 8, 4, 4)
    assert torch.equal(masks[0], masks[2])
    assert not torch.equal(masks[0], masks[1])


def test_a_mask_does_not_depend_on_the_batch_or_the_generators():
    layer, keys, inputs = Dropout(0.3), spread_keys(24), numbers(24, 8, 4, 4)
    with randomised(layer, keys):
        together = layer(inputs)
    order = torch.randperm(24, generator=(Seed(0) / "order").generator())
    torch.manual_seed(9)
    with randomised(layer, keys[order]):
        assert torch.equal(layer(inputs[order]), together[order])
    for rows in torch.arange(24).split(7):
        with randomised(layer, keys[rows]):
            assert torch.equal(layer(inputs[rows]), together[rows])
    with randomised(layer, keys):
        assert torch.equal(layer(inputs.contiguous(memory_format=torch.channels_last)), together)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no second kind of device")
def test_a_mask_does_not_depend_on_the_device():
    keys = spread_keys(24)
    here = masks_of_layers(0.3, keys, 2, 8, 4, 4)
    model = nn.ModuleList([Dropout(0.3) for _ in range(2)])
    with randomised(model, keys.cuda()):
        there = [(layer(torch.ones(24, 8, 4, 4, device="cuda")) != 0).float().cpu() for layer in model]
    assert all(torch.equal(one, other) for one, other in zip(here, there, strict=True))


def scrambled(word: int) -> int:
    """lowbias32, in Python's own integers."""
    word ^= word >> 16
    word = word * 0x7FEB352D % 2**32
    word ^= word >> 15
    word = word * 0x846CA68B % 2**32
    return word ^ word >> 16


def stays(key: int, layer: int, place: int, rate: float) -> bool:
    high, low = divmod(key % 2**64, 2**32)
    step = layer * 0x9E3779B9 % 2**32
    first = scrambled(low ^ scrambled(step))
    second = scrambled((scrambled(high ^ scrambled((step + 1) % 2**32)) + first) % 2**32)
    bits = scrambled(((scrambled(place * 0x9E3779B9 % 2**32) ^ first) + second) % 2**32)
    return bits ^ 2**31 >= rate * 2**32


def test_masks_are_the_documented_hash():
    """The second route, and a promise: another hash would make other poisons of the same settings."""
    keys = (0, 1, -1, 2**40 + 3, -(2**63))
    masks = masks_of_layers(0.25, torch.tensor(keys), 3, 5, 20)
    for number, mask in enumerate(masks, start=1):
        by_hand = [[stays(key, number, place, 0.25) for place in range(100)] for key in keys]
        assert torch.equal(mask.flatten(1).bool(), torch.tensor(by_hand))


def test_vectors_are_dropped_as_maps_are():
    masks = kept(Dropout(0.3), torch.arange(64), 100)
    assert masks.mean() == pytest.approx(0.7, abs=SIGMAS * sqrt(0.21 / masks.numel()))


def test_images_of_another_size_may_follow():
    layer = Dropout(0.3)
    with randomised(layer, torch.arange(4)):
        small = layer(torch.ones(4, 8, 2, 2))
        layer(torch.ones(4, 8, 4, 4))
        assert torch.equal(layer(torch.ones(4, 8, 2, 2)), small)


def test_a_batch_that_does_not_match_its_keys_is_refused():
    with randomised(layer := Dropout(0.3), torch.arange(4)), pytest.raises(SettingError, match=r"5 images.*4 keys"):
        layer(torch.ones(5, 8))


def test_after_an_error_the_layers_are_as_they_were():
    model, inputs = SmallResNet(dropout=0.3).build((3, 32, 32), ("a", "b"), Seed(0)).eval(), numbers(4, 3, 32, 32)
    before = model(inputs)
    seen: list[Tensor] = []
    with suppress(SettingError), randomised(model, torch.arange(4)):
        seen.append(model(inputs))
        model(inputs[:3])
        pytest.fail("three images went through with four keys")
    assert not torch.equal(seen[0], before)
    assert torch.equal(model(inputs), before)


def test_one_within_another_gives_the_outer_keys_back():
    layer, inputs = Dropout(0.3), torch.ones(4, 32)
    with randomised(layer, torch.arange(4)):
        outer = layer(inputs)
        with randomised(layer, torch.arange(4) + 100):
            assert not torch.equal(layer(inputs), outer)
        assert torch.equal(layer(inputs), outer)


def test_a_copy_made_within_is_an_ordinary_model():
    model, inputs = SmallResNet(dropout=0.3).build((3, 32, 32), ("a", "b"), Seed(0)).eval(), numbers(4, 3, 32, 32)
    before = model(inputs)
    with randomised(model, torch.arange(4)):
        model(inputs)
        copy = model.copy()
        assert torch.equal(copy(inputs), before)


def test_half_precision_keeps_its_type_and_its_mask():
    layer, keys = Dropout(0.3), torch.arange(8)
    with randomised(layer, keys):
        halves = layer(torch.ones(8, 64, dtype=torch.bfloat16))
        assert halves.dtype == torch.bfloat16
        assert torch.equal(halves != 0, layer(torch.ones(8, 64)) != 0)
