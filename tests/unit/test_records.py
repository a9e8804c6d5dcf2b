"""What travels between players and referee."""

import json

import pytest
import torch
from torch import Tensor

from bezoar.errors import DataError
from bezoar.records import Dataset, Estimate, Inspection, Poison, Trusted, as_float, as_stored
from bezoar.seed import Seed

NAMES = ("a", "b", "c")


def images(count: int, name: str = "images") -> Tensor:
    return torch.randint(256, (count, 3, 4, 5), dtype=torch.uint8, generator=(Seed(0) / name).generator())


def dataset(count: int = 12) -> Dataset:
    return Dataset.in_memory(images(count), torch.arange(count) % 3, NAMES, torch.arange(count) // 2)


def lazy(data: Dataset) -> Dataset:
    """The same data, read one image at a time."""
    held = data.images()
    read = lambda rows: torch.stack([held[row] for row in rows.tolist()]) if len(rows) else held[:0]  # noqa: E731
    return Dataset(data.labels, data.classes, data.shape, read, data.groups)


def poison(boost: int = 1) -> Poison:
    return Poison(torch.tensor([7, 2, 10]), images(3, "poison"), torch.tensor([0, 0, 1]), boost)


def same(one: Dataset, other: Dataset) -> bool:
    groups = one.groups is other.groups is None or torch.equal(one.groups, other.groups)  # type: ignore[arg-type]
    return torch.equal(one.images(), other.images()) and torch.equal(one.labels, other.labels) and groups


def test_stored_images_survive_floats():
    every = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    assert torch.equal(as_stored(as_float(every)), every)
    assert torch.equal(as_stored(torch.tensor([[[[-1.0, 2.0, 0.5]]]])), torch.tensor([[[[0, 255, 128]]]]).byte())


@pytest.mark.usefixtures("unchecked")
def test_images_without_a_label_each_are_refused():
    with pytest.raises(DataError, match="12 images have 11 labels"):
        Dataset.in_memory(images(12), torch.zeros(11, dtype=torch.int64), NAMES)


@pytest.mark.parametrize("boost", [1, 2, 4])
def test_poison_replaces_its_rows_and_repeats_them_at_the_end(boost: int):
    clean, added = dataset(), poison(boost)
    victim = added.apply(clean)
    by_hand = [clean.images()[row] for row in range(12)]
    labels, groups = clean.labels.tolist(), clean.groups.tolist()
    for place, row in enumerate(added.rows.tolist()):
        by_hand[row], labels[row] = added.images[place], int(added.labels[place])
    for _ in range(boost - 1):
        by_hand += list(added.images)
        labels += added.labels.tolist()
        groups += [groups[row] for row in added.rows.tolist()]
    assert torch.equal(victim.images(), torch.stack(by_hand))
    assert victim.labels.tolist() == labels
    assert victim.groups.tolist() == groups
    copies = (victim.images() == added.images[0]).flatten(1).all(1).sum()
    assert int(copies) == boost


def test_poison_leaves_clean_data_alone():
    clean = dataset()
    before = (clean.images().clone(), clean.labels.clone())
    poison(3).apply(clean).images()
    assert torch.equal(clean.images(), before[0])
    assert torch.equal(clean.labels, before[1])


def test_an_empty_poison_changes_nothing():
    nothing = Poison(torch.zeros(0, dtype=torch.int64), images(0), torch.zeros(0, dtype=torch.int64), 5)
    assert same(nothing.apply(dataset()), dataset())


def test_poison_of_a_row_that_is_not_there_is_refused():
    with pytest.raises(DataError, match="replaces row 10, but the data set ends at row 8"):
        poison().apply(dataset(9))


def test_lazy_data_are_the_same_as_data_in_memory():
    clean, rows = dataset(), torch.tensor([11, 7, 7, 0])
    for one, other in (
        (clean, lazy(clean)),
        (clean.take(rows), lazy(clean).take(rows)),
        (poison(2).apply(clean), poison(2).apply(lazy(clean))),
        (poison(2).apply(clean).take(rows), poison(2).apply(lazy(clean)).take(rows).loaded()),
    ):
        assert same(one, other)
        assert torch.equal(other.batch(torch.tensor([3, 1])), one.images()[[3, 1]])


def test_poison_reads_only_the_rows_it_is_asked_for():
    asked: list[int] = []
    clean = dataset()

    def read(rows: Tensor) -> Tensor:
        asked.extend(rows.tolist())
        return clean.batch(rows)

    poison().apply(Dataset(clean.labels, NAMES, clean.shape, read)).batch(torch.tensor([4, 7]))
    assert set(asked) <= {4, 0}  # row 7 is poisoned; its place is filled with row 0


def test_taking_rows_takes_labels_and_groups_along():
    rows = torch.tensor([5, 0, 5])
    taken = dataset().take(rows)
    assert taken.labels.tolist() == [2, 0, 2]
    assert taken.groups.tolist() == [2, 0, 2]
    assert torch.equal(taken.images(), dataset().images()[rows])
    assert torch.equal(taken.take(torch.tensor([1])).images(), dataset().images()[:1])


def test_a_sample_is_without_replacement_and_part_of_a_larger_one():
    some, more = dataset().sample(5, Seed(1)), dataset().sample(9, Seed(1))
    assert len({bytes(image.numpy()) for image in more.images()}) == 9
    assert torch.equal(more.images()[:5], some.images())


@pytest.mark.parametrize("count", [2, 5, 7])
def test_folds_part_the_trusted_images(count: int):
    trusted = Trusted(images(12), torch.arange(12), tuple("abcdefghijkl"))
    folds = trusted.folds(count, Seed(0))
    assert sorted(label for _, fold in folds for label in fold.labels.tolist()) == list(range(12))
    sizes = {len(fold) for _, fold in folds}
    assert max(sizes) - min(sizes) <= 1
    for rest, fold in folds:
        assert sorted(rest.labels.tolist() + fold.labels.tolist()) == list(range(12))
        assert torch.equal(fold.images, trusted.images[fold.labels])


def test_a_trigger_with_a_mask_replaces_what_it_covers():
    masks = torch.zeros(3, 1, 4, 5)
    masks[1, :, :2] = 1
    found = Inspection(torch.tensor([0.0, 2.0, 1.0]), torch.full((3, 3, 4, 5), 0.25), masks)
    assert (found.suspect, found.score) == (1, 2.0)
    stamped = found.stamp(torch.ones(2, 3, 4, 5), 1)
    assert bool((stamped[:, :, :2] == 0.25).all())
    assert bool((stamped[:, :, 2:] == 1).all())
    assert torch.equal(found.stamp(torch.ones(2, 3, 4, 5), 0), torch.ones(2, 3, 4, 5))


def test_a_trigger_without_a_mask_is_added_and_clamped():
    found = Inspection(torch.zeros(3), torch.full((3, 3, 4, 5), 0.75))
    assert bool((found.stamp(torch.full((1, 3, 4, 5), 0.125), 2) == 0.875).all())
    assert bool((found.stamp(torch.full((1, 3, 4, 5), 0.5), 2) == 1).all())


def test_a_detector_without_triggers_says_so():
    with pytest.raises(DataError, match="reconstructs no triggers"):
        Inspection(torch.zeros(3)).stamp(torch.zeros(1, 3, 4, 5), 0)


def test_an_estimate_survives_json():
    estimate = Estimate(0.1 + 0.2, 0.25, 1 / 3, 17, "models")
    assert Estimate.from_json(json.loads(json.dumps(estimate.as_json()))) == estimate
    assert str(estimate) == "0.300 [0.250, 0.333]"


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.tensor([0, 3, 1]), "1 trusted images have labels outside the 3 classes, the first is 3"),
        (torch.tensor([-1, 0, -1]), "2 trusted images have labels outside the 3 classes, the first is -1"),
    ],
)
def test_trusted_images_have_labels_among_the_classes(labels: Tensor, message: str):
    with pytest.raises(DataError, match=message):
        Trusted(images(3), labels, NAMES)


@pytest.mark.parametrize(("masks", "thin"), [(None, False), (0.05, True), (0.7, False)])
def test_a_trigger_is_thin_if_it_lets_the_image_through_everywhere(masks: float | None, thin: bool):
    held = None if masks is None else torch.full((3, 1, 4, 5), masks)
    assert Inspection(torch.zeros(3), torch.zeros(3, 3, 4, 5), held).thin is thin


@pytest.mark.parametrize("boost", [1, 3])
def test_points_that_are_added_stand_at_the_end_and_replace_nothing(boost: int):
    """Second route: concatenation by hand. Two points are from one row."""
    clean = dataset()
    points = Poison(torch.tensor([7, 2, 7]), images(3, "poison"), torch.tensor([0, 0, 1]), boost, added=True)
    victim = points.apply(clean)
    assert torch.equal(victim.images(), torch.cat([clean.images(), *[points.images] * boost]))
    assert victim.labels.tolist() == clean.labels.tolist() + [0, 0, 1] * boost
    assert clean.groups is not None
    assert victim.groups is not None
    assert victim.groups.tolist() == [*clean.groups.tolist(), *[3, 1, 3] * boost]  # the groups of rows 7, 2, 7
    assert points.places(len(clean)).tolist() == list(range(12, 12 + 3 * boost))
    assert same(points.apply(lazy(clean)), victim)


def test_added_points_that_are_settled_are_the_only_ones_augmentation_leaves_alone():
    points = Poison(torch.tensor([7, 2]), images(2, "poison"), torch.tensor([0, 0]), settled=True, added=True)
    settled = points.apply(dataset()).settled
    assert settled is not None
    assert settled.tolist() == [False] * 12 + [True] * 2


def test_replaced_rows_have_places_of_their_own_and_their_repeats_stand_at_the_end():
    assert poison(2).places(12).tolist() == [7, 2, 10, 12, 13, 14]
