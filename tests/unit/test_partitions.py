"""Partition ensembles: which part an image is in, what a poison can reach, how members vote, and what that bears."""

from __future__ import annotations

from hashlib import blake2b
from itertools import combinations, product
from pathlib import Path

import pytest
import torch
from torch import Tensor

from bezoar.errors import SettingError
from bezoar.games.referee import Made, Recipe, Referee
from bezoar.lab import Lab
from bezoar.models.ensemble import Ensemble, EnsembleClassifier, Vote
from bezoar.models.resnet import SmallResNet
from bezoar.records import Dataset, Poison, as_float
from bezoar.roles import Splits
from bezoar.seed import Seed
from bezoar.store import Store
from bezoar.testing import toy
from bezoar.testing.watch import state
from bezoar.training.partitions import PartitionEnsemble, partition, tolerated

VOTES: tuple[Vote, ...] = ("classes", "probabilities")


def trainer(parts: int = 3) -> PartitionEnsemble:
    inner = toy.lab().trainer
    assert inner is not None
    return PartitionEnsemble(trainer=inner, parts=parts)


def train(data: Dataset) -> EnsembleClassifier:
    model = trainer().train(SmallResNet(), data, Lab(), Seed(1))
    assert isinstance(model, EnsembleClassifier)
    return model


def added(data: Dataset, count: int) -> Dataset:
    """With inverted images of the first rows at the end."""
    rows = torch.arange(count)
    return Poison(rows, 255 - data.batch(rows), 3 - data.labels[rows], added=True).apply(data)


def test_an_image_is_in_the_part_that_its_digest_says_and_no_other():
    """Second route: Python's own hash, one image at a time."""
    data = toy.dataset()
    parts = partition(data, 5)
    assert sorted(int(row) for part in parts for row in part) == list(range(len(data)))
    for number, rows in enumerate(parts):
        digests = [blake2b(bytes(data.batch(row[None]).flatten().tolist()), digest_size=16).digest() for row in rows]
        assert all(int.from_bytes(each, "big") % 5 == number for each in digests)
        assert digests == sorted(digests)


def test_added_points_move_no_other_and_the_order_of_the_rows_does_not_matter():
    data = toy.dataset()
    before, after = partition(data, 5), partition(added(data, 6), 5)
    for one, other in zip(before, after, strict=True):
        assert torch.equal(one, other[other < len(data)])
    order = (Seed(2) / "order").permutation(len(data))
    shuffled = data.take(order)
    for one, other in zip(before, partition(shuffled, 5), strict=True):
        assert torch.equal(data.batch(one), shuffled.batch(other))


def test_parts_are_about_equally_large():
    images = torch.arange(4000).view(-1, 1, 1, 1).repeat(1, 1, 1, 2) % torch.tensor([250, 16])
    sizes = torch.tensor([len(rows) for rows in partition(_of(images.to(torch.uint8)), 10)])
    distinct = len(images.unique(dim=0))
    assert distinct == 2000
    assert (sizes - 400).abs().max() < 5 * (2 * 400) ** 0.5


def _of(images: Tensor) -> Dataset:
    return Dataset.in_memory(images, torch.zeros(len(images), dtype=torch.int64), ("a",))


def test_an_added_point_changes_the_member_of_its_own_part_and_no_other():
    data = toy.dataset()
    poisoned = added(data, 1)
    (own,) = [number for number, rows in enumerate(partition(poisoned, 3)) if len(data) in rows.tolist()]
    clean, dirty = train(data), train(poisoned)
    changed = [state(one) != state(other) for one, other in zip(clean.voters, dirty.voters, strict=True)]
    assert changed == [number == own for number in range(3)]


@pytest.mark.parametrize("vote", VOTES)
def test_logits_are_the_sum_of_what_members_say_and_blocks_are_side_by_side(vote: Vote):
    model = Ensemble(architecture=SmallResNet(), parts=3, vote=vote).build(toy.SHAPE, toy.CLASSES, Seed(1)).eval()
    assert isinstance(model, EnsembleClassifier)
    images = as_float(toy.dataset(9).images())
    with torch.no_grad():
        each = [member(images) for member in model.voters]
        said = [
            one.softmax(1) if vote == "probabilities" else (one == one.amax(1, keepdim=True)).float() for one in each
        ]
        blocks, logits = model.trace(images)
        assert torch.allclose(model(images), torch.stack(said).sum(0), atol=1e-5)
        assert torch.allclose(logits, model(images), atol=1e-6)
    assert [block.shape[1] for block in blocks] == [3 * 16, 3 * 32, 3 * 64]


def test_of_equal_votes_the_smaller_class_wins():
    model = Ensemble(architecture=SmallResNet(), parts=7).build(toy.SHAPE, toy.CLASSES, Seed(1)).eval()
    said = torch.zeros(1, 7, 4)
    said[0, range(7), torch.tensor([3, 1, 3, 1, 3, 1, 0])] = 1
    assert model.head(said.flatten(1)).tolist() == [[1, 3, 0, 3]]
    assert int(model.head(said.flatten(1)).argmax()) == 1


def test_what_is_tolerated_cannot_alter_the_answer_and_one_more_can():
    """Second route: every way to change that many of six votes for four classes."""
    for heard in list(product(range(4), repeat=6))[::17]:
        votes = torch.tensor(heard).bincount(minlength=4)
        answer, bound = int(votes.argmax()), int(tolerated(votes[None]))
        assert not _alterable(heard, answer, bound)
        assert _alterable(heard, answer, bound + 1)


def _alterable(heard: tuple[int, ...], answer: int, changes: int) -> bool:
    for places in combinations(range(len(heard)), changes):
        for said in product(range(4), repeat=changes):
            now = list(heard)
            for place, one in zip(places, said, strict=True):
                now[place] = one
            if max(range(4), key=lambda cls: (now.count(cls), -cls)) != answer:
                return True
    return False


def test_the_referee_gives_the_same_ensemble_back_from_the_store(tmp_path: Path):
    recipe = Recipe(SmallResNet(), trainer())
    data = Made(Splits(toy.dataset(), toy.unseen()), "toy")
    first, again = (Referee(Store(tmp_path)).train(data, None, recipe, Seed(1)).value for _ in range(2))
    images = as_float(toy.unseen().images())
    assert isinstance(again, EnsembleClassifier)
    with torch.no_grad():
        assert torch.equal(first(images), again(images))
        assert (again(images).argmax(1) == toy.unseen().labels).double().mean() > 0.5


def test_more_parts_than_the_images_fill_are_refused_by_name():
    with pytest.raises(SettingError, match=r"trainer.parts: of 40 parts of 20 images, \d+ are empty; choose fewer"):
        trainer(40).train(SmallResNet(), toy.dataset(20), Lab(), Seed(1))
