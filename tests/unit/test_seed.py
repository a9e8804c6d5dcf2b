"""Named random streams."""

import pytest
import torch

from bezoar.seed import Seed


def test_a_stream_is_the_same_whenever_it_is_opened():
    first, second = (torch.rand(5, generator=(Seed(3) / "a" / 1).generator()) for _ in range(2))
    assert torch.equal(first, second)


def test_streams_of_other_names_or_roots_are_others():
    seeds = [Seed(0), Seed(1), Seed(0) / "a", Seed(0) / "b", Seed(0) / "a" / "b", Seed(0) / "b" / "a", Seed(0) / 1]
    assert len({seed.integer() for seed in seeds}) == len(seeds)
    assert len({tuple(torch.rand(3, generator=seed.generator()).tolist()) for seed in seeds}) == len(seeds)


def test_a_number_and_its_text_name_the_same_stream():
    assert Seed(0) / 7 == Seed(0) / "7"
    assert str(Seed(4) / "collect" / 7) == "4/collect/7"


def test_an_integer_fits_every_generator():
    numbers = [(Seed(0) / number).integer() for number in range(200)]
    assert all(0 <= number < 2**63 for number in numbers)
    # the top bit below 2**63 is used, so that no half of the range is lost
    assert 60 < sum(number >= 2**62 for number in numbers) < 140


def test_a_permutation_is_one():
    drawn = Seed(0).permutation(100)
    assert sorted(drawn.tolist()) == list(range(100))
    assert drawn.tolist() != list(range(100))
    assert torch.equal(drawn, torch.randperm(100, generator=Seed(0).generator()))


def test_scoped_code_draws_from_the_stream_and_global_state_is_restored():
    before = torch.get_rng_state()
    with Seed(5).scoped():
        inside = torch.rand(3)
        torch.rand(100)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(inside, torch.rand(3, generator=Seed(5).generator()))


def test_global_state_is_restored_after_an_error():
    before = torch.get_rng_state()
    with pytest.raises(RuntimeError), Seed(5).scoped():
        torch.rand(-1)
    assert torch.equal(torch.get_rng_state(), before)
