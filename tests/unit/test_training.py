"""The one step generator, its batches, augmentation and schedules."""

import math
from itertools import islice

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from bezoar.lab import Lab
from bezoar.models.resnet import SmallResNet
from bezoar.records import Dataset, Trusted, as_float
from bezoar.seed import Seed
from bezoar.testing import toy
from bezoar.testing.watch import nothing_global_changes, require_unchanged, state, surroundings
from bezoar.training import batches as module
from bezoar.training.augment import augment
from bezoar.training.batches import Batch, batches, per_epoch
from bezoar.training.sgd import RISE, Sgd
from bezoar.training.steps import cross_entropy, steps

CPU = torch.device("cpu")


class Net(nn.Module):
    """Batch normalisation and dropout, so that mode and random state matter."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.5), nn.Flatten())
        self.linear = nn.Linear(8 * 14 * 14, 4)

    def forward(self, images: Tensor) -> Tensor:
        return self.linear(self.body(images))


def network() -> Net:
    with Seed(0).scoped():
        net = Net()
    net.body.eval()  # the modes of the layers differ
    return net


def few(count: int = 5) -> list[Batch]:
    return list(islice(batches(toy.dataset(), 16, Seed(1), device=CPU), count))


def descent(net: Net) -> torch.optim.SGD:
    return torch.optim.SGD(net.parameters(), 0.05, momentum=0.9, nesterov=True, weight_decay=1e-3)


def test_steps_are_those_of_a_loop_written_by_hand():
    net, by_hand = network(), network()
    optimizer, schedule = descent(net), None
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 5)
    seen = list(steps(net, few(), cross_entropy, optimizer, seed=Seed(2), schedule=schedule))
    other = descent(by_hand)
    losses = []
    for number, batch in enumerate(few(), start=1):
        other.param_groups[0]["lr"] = 0.05 * (1 + math.cos(math.pi * (number - 1) / 5)) / 2
        by_hand.train()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed((Seed(2) / number).integer())
            loss = functional.cross_entropy(by_hand(batch.images), batch.labels)
        other.zero_grad()
        loss.backward()
        other.step()
        losses.append(float(loss.detach()))
    assert [step.number for step in seen] == [1, 2, 3, 4, 5]
    assert [float(step.loss) for step in seen] == pytest.approx(losses, rel=1e-5)
    for one, two in zip(net.parameters(), by_hand.parameters(), strict=True):
        assert torch.allclose(one, two, atol=1e-6)
    assert torch.allclose(net.body[1].running_mean, by_hand.body[1].running_mean, atol=1e-6)


def test_modes_and_global_state_are_as_before_between_steps():
    net, before = network(), surroundings()
    modes = state(net)["modes"]
    inside: list[bool] = []

    def objective(model: Net, batch: Batch) -> Tensor:
        inside.append(model.body[1].training)
        return cross_entropy(model, batch)

    for _ in steps(net, few(), objective, descent(net), seed=Seed(0)):
        assert state(net)["modes"] == modes
        require_unchanged(before, surroundings())
    assert inside == [True] * 5


def test_an_abandoned_iterator_leaves_nothing_behind():
    net = network()
    modes = state(net)["modes"]
    with nothing_global_changes():
        for step in steps(net, few(), cross_entropy, descent(net), seed=Seed(0)):
            if step.number == 2:
                break
    assert state(net)["modes"] == modes
    assert not state(net)["hooks"]


def test_an_error_inside_a_step_gives_modes_and_generators_back():
    net = network()
    modes = state(net)["modes"]

    def fail(model: Net, batch: Batch) -> Tensor:
        model(batch.images)
        raise ArithmeticError

    with nothing_global_changes(), pytest.raises(ArithmeticError):
        next(steps(net, few(), fail, descent(net), seed=Seed(0)))
    assert state(net)["modes"] == modes


def test_a_step_can_leave_statistics_alone_and_project_afterwards():
    net = network()
    mean = net.body[1].running_mean.clone()
    clip = lambda model, _: [parameter.data.clamp_(-0.01, 0.01) for parameter in model.parameters()]  # noqa: E731
    list(steps(net, few(), cross_entropy, descent(net), seed=Seed(0), training=False, after=clip))
    assert torch.equal(net.body[1].running_mean, mean)
    assert all(float(parameter.detach().abs().max()) <= 0.01 for parameter in net.parameters())


def test_bfloat16_is_for_the_objective_alone():
    net = network()
    kinds: list[torch.dtype] = []

    def objective(model: Net, batch: Batch) -> Tensor:
        kinds.append(model(batch.images).dtype)
        return cross_entropy(model, batch)

    list(steps(net, few(2), objective, descent(net), seed=Seed(0), precision="bfloat16"))
    assert kinds == [torch.bfloat16] * 2
    assert all(parameter.dtype == torch.float32 for parameter in net.parameters())


@pytest.mark.parametrize(("count", "size"), [(64, 16), (65, 16), (66, 16), (10, 16), (2, 2), (3, 2), (1, 16), (5, 1)])
def test_an_epoch_covers_every_image_once_but_for_a_last_single_one(count: int, size: int):
    data = toy.dataset(count)
    made = list(batches(data, size, Seed(0), device=CPU, epochs=1))
    rows = torch.cat([batch.rows for batch in made]).tolist()
    assert len(made) == per_epoch(count, size)
    if count == 1:
        assert rows == [0, 0]  # batch normalisation needs two
    else:
        single = count % size == 1 and size > 1
        assert len(rows) == len(set(rows)) == count - single
        assert all(len(batch.rows) > 1 for batch in made) or size == 1
    for batch in made:
        assert torch.equal(batch.labels, data.labels[batch.rows])
        assert torch.equal(batch.images, as_float(data.images()[batch.rows]))


def test_epochs_differ_in_order_and_follow_the_seed():
    first, second = (list(batches(toy.dataset(), 64, Seed(s), device=CPU, epochs=2)) for s in (0, 0))
    other = next(batches(toy.dataset(), 64, Seed(1), device=CPU))
    assert [one.rows.tolist() for one in first] == [one.rows.tolist() for one in second]
    assert first[0].rows.tolist() != first[1].rows.tolist()
    assert first[0].rows.tolist() != other.rows.tolist()


def test_the_order_does_not_depend_on_augmentation():
    plain, jittered = (next(batches(toy.dataset(), 64, Seed(0), device=CPU, augmentation=a)) for a in ("none", "crop"))
    assert torch.equal(plain.rows, jittered.rows)
    assert not torch.equal(plain.images, jittered.images)


def test_data_read_batch_by_batch_give_the_same_batches(monkeypatch: pytest.MonkeyPatch):
    data = toy.dataset()
    lazy = Dataset(data.labels, data.classes, data.shape, lambda rows: data.images()[rows])
    held = list(batches(data, 16, Seed(0), device=CPU, epochs=1, augmentation="crop_flip"))
    monkeypatch.setattr(module, "IN_MEMORY_BYTES", 0)
    for source in (lazy, Trusted.of(data)):
        read = batches(source, 16, Seed(0), device=CPU, epochs=1, augmentation="crop_flip")
        assert all(torch.equal(one.images, two.images) for one, two in zip(held, read, strict=True))


def test_a_crop_is_that_of_a_loop_over_images():
    images = toy.photographs(40)
    cropped = augment(images, "crop", Seed(0).generator())
    draws = Seed(0).generator()
    top, left = (torch.randint(5, (40,), generator=draws).tolist() for _ in range(2))
    padded = torch.zeros(40, 3, 20, 20)
    padded[:, :, 2:18, 2:18] = images
    for row in range(40):
        assert torch.equal(cropped[row], padded[row, :, top[row] : top[row] + 16, left[row] : left[row] + 16])
    assert len(set(zip(top, left, strict=True))) > 10


def test_a_flip_mirrors_some_images_and_undoes_itself():
    images = toy.photographs(40)
    once = augment(images, "flip", Seed(0).generator())
    mirrored = [torch.equal(once[row], images[row].flip(2)) for row in range(40)]
    kept = [torch.equal(once[row], images[row]) for row in range(40)]
    assert all(one or two for one, two in zip(mirrored, kept, strict=True))
    assert 10 < sum(mirrored) < 30 + 2  # black and white look the same in a mirror
    assert torch.equal(augment(once, "flip", Seed(0).generator()), images)


def test_no_augmentation_changes_nothing_and_draws_nothing():
    images, draws = toy.photographs(), Seed(0).generator()
    assert augment(images, "none", draws) is images
    assert torch.equal(draws.get_state(), Seed(0).generator().get_state())


def rates(recipe: Sgd, total: int) -> list[float]:
    """The learning rate of every step."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], recipe.lr)
    schedule = recipe._schedule(optimizer, total)
    found = []
    for _ in range(total):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if schedule is not None:
            schedule.step()
    return found


@pytest.mark.parametrize("total", [5, 40, 401])
def test_one_cycle_rises_to_the_learning_rate_and_falls_to_nearly_nothing(total: int):
    found = rates(Sgd(lr=0.4, schedule="one_cycle"), total)
    peak = found.index(max(found))
    assert max(found) == pytest.approx(0.4)
    assert peak + 1 == max(1, round(RISE * total))
    assert found[: peak + 1] == sorted(found[: peak + 1])
    assert found[peak:] == sorted(found[peak:], reverse=True)
    assert 0 < found[-1] <= 0.4 / (total - peak - 1) * 1.001
    assert all(rate > 0 for rate in found)


def test_the_other_schedules_are_what_they_are_called():
    assert rates(Sgd(lr=0.4, schedule="constant"), 9) == [0.4] * 9
    assert rates(Sgd(lr=0.4, schedule="steps"), 8) == pytest.approx([0.4] * 4 + [0.04] * 2 + [0.004] * 2)
    cosine = [0.2 * (1 + math.cos(math.pi * step / 9)) for step in range(9)]
    assert rates(Sgd(lr=0.4, schedule="cosine"), 9) == pytest.approx(cosine)


def test_whole_batches_alone_go_through_the_compiled_model(monkeypatch: pytest.MonkeyPatch):
    sizes: list[int] = []

    def compiled(model: nn.Module, **settings: object) -> nn.Module:
        assert settings == {"dynamic": False, "mode": "reduce-overhead"}

        class Compiled(nn.Module):
            def forward(self, images: Tensor) -> Tensor:
                sizes.append(len(images))
                return model(images)

        return Compiled()

    monkeypatch.setattr(torch, "compile", compiled)
    recipe = Sgd(epochs=2, batch_size=14, lr=0.01, compile=True)
    fast, plain = (
        one.train(toy.architecture(), toy.dataset(), Lab(), Seed(0)) for one in (recipe, recipe.replace(compile=False))
    )
    assert len(toy.dataset()) == 64
    assert sizes == [14] * 8, "two epochs of four whole batches each; the last eight images go past it"
    for one, two in zip(fast.parameters(), plain.parameters(), strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_training_learns_what_can_be_learnt(precision: str):
    recipe = Sgd(epochs=6, batch_size=16, lr=0.05, schedule="one_cycle", augmentation="crop", precision=precision)
    model = recipe.train(SmallResNet(width=16), toy.dataset(), Lab(), Seed(0))
    unseen = toy.unseen()
    assert float((model(as_float(unseen.images())).argmax(1) == unseen.labels).float().mean()) > 0.8
