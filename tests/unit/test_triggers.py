"""Triggers: closed forms, brute force and other libraries beside them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage, stats
from torch import Tensor, nn
from torch.nn import functional

from bezoar.component import build
from bezoar.errors import SettingError
from bezoar.lab import Lab
from bezoar.models.classifier import Classifier
from bezoar.records import as_float, as_stored
from bezoar.roles import Trigger
from bezoar.seed import Seed
from bezoar.triggers.blend import Blend
from bezoar.triggers.ghost import Ghost
from bezoar.triggers.patch import Patch, apple
from bezoar.triggers.perturbation import Perturbation
from bezoar.triggers.segments import Segments
from bezoar.triggers.warp import Warp

SEED = Seed(5)
LAB = Lab()


def photographs(count: int = 3, channels: int = 3, height: int = 32, width: int = 32) -> Tensor:
    return torch.rand(count, channels, height, width, generator=Seed(1).generator())


def stamp(trigger: Trigger, images: Tensor) -> Tensor:
    return trigger.stamp(images, torch.arange(len(images)), LAB, SEED)


def test_blend_mixes_every_pixel_black_ones_included():
    images = photographs()
    assert torch.allclose(stamp(Blend(opacity=0.3), images), 0.7 * images + 0.3 * apple(32), atol=1e-6)
    assert float((apple(32) == 0).sum()) > 100


def test_blend_fits_an_image_that_is_not_square():
    images = photographs(height=24, width=32)
    stamped = stamp(Blend(opacity=1.0), images)
    assert torch.equal(stamped[0], stamped[1])
    assert stamped.shape == images.shape


@pytest.mark.parametrize("trigger", [Blend(), Patch(), Patch(size=7)], ids=str)
def test_all_cells_are_the_whole_trigger_and_none_is_none_of_it(trigger: Trigger):
    images = photographs()
    assert torch.allclose(trigger.stamp_cells(images, torch.ones(3, 1, 4, 4)), stamp(trigger, images), atol=1e-6)
    assert torch.equal(trigger.stamp_cells(images, torch.zeros(3, 1, 4, 4)), images)


def test_a_blended_cell_that_is_left_out_stays_bit_by_bit():
    images, kept = photographs(1), torch.ones(1, 1, 4, 4)
    kept[0, 0, 2, 1] = 0
    stamped = Blend().stamp_cells(images, kept)
    assert torch.equal(stamped[..., 16:24, 8:16], images[..., 16:24, 8:16])
    rest = stamped != images
    rest[..., 16:24, 8:16] = True
    assert bool(rest.any(1).all())


def test_sixteen_cells_on_three_pixels_are_averaged_down():
    """Brute force: draw mask and pattern on 12 x 12 points and average what falls into each pixel."""
    image = photographs(1)
    kept = (torch.rand(1, 1, 4, 4, generator=Seed(3).generator()) < 0.5).float()
    expected = image[0].numpy().copy()
    for row in range(3):
        for column in range(3):
            share, ink = 0.0, 0.0
            for y in range(4 * row, 4 * row + 4):
                for x in range(4 * column, 4 * column + 4):
                    here = float(kept[0, 0, y // 3, x // 3])
                    share += here / 16
                    ink += here * float(apple(3)[y // 4, x // 4]) / 16
            expected[:, row, column] = expected[:, row, column] * (1 - share) + ink
    assert np.allclose(Patch().stamp_cells(image, kept)[0].numpy(), expected, atol=1e-6)


def test_cells_that_do_not_divide_the_image_are_refused():
    with pytest.raises(SettingError, match=r"attack\.cells: images of 32x32 cannot be divided into 5 x 5 .* of 32"):
        Blend().stamp_cells(photographs(1), torch.ones(1, 1, 5, 5))


@pytest.mark.parametrize("trigger", [Ghost(), Warp(), Segments()], ids=str)
def test_a_trigger_that_has_no_parts_says_so(trigger: Trigger):
    with pytest.raises(SettingError, match=r"no parts of .* can be left out; use 'blend' or 'patch'"):
        trigger.stamp_cells(photographs(1), torch.ones(1, 1, 4, 4))


def test_a_ghost_of_no_intensity_is_none():
    images = photographs()
    assert torch.equal(stamp(Ghost(intensity=0.0), images), images)


def test_the_way_to_light_and_back_changes_nothing():
    """An image of one brightness looks the same beside itself, whatever the offset: the gamma round trip to 1e-6."""
    for value in (0.02, 0.3, 1.0):
        images = torch.full((1, 3, 32, 32), value)
        assert torch.allclose(stamp(Ghost(), images), images, atol=1e-6)


def test_a_ghost_is_the_image_and_the_image_three_pixels_further_on():
    """Second route: slices instead of padding."""
    images = photographs()
    light = images.double() ** 2.2
    both = 0.5 * light[..., 3:, 3:] + 0.5 * light[..., :-3, :-3]
    ghost = functional.interpolate(both, (32, 32), mode="bicubic", align_corners=False).clamp(0, 1)
    expected = (0.25 * light + 0.75 * ghost) ** (1 / 2.2)
    assert torch.allclose(stamp(Ghost(intensity=0.75), images).double(), expected, atol=1e-5)


def test_a_ghost_that_does_not_fit_is_refused():
    with pytest.raises(SettingError, match=r"trigger\.offset: a ghost 16 pixels apart does not fit .* less than 16"):
        stamp(Ghost(offset=16), photographs())


def test_a_warp_of_no_strength_is_none():
    images = photographs()
    assert torch.equal(stamp(Warp(strength=0.0), images), images)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (20, 28)])
def test_a_warp_reads_between_pixels_as_scipy_does(height: int, width: int):
    images = photographs(2, height=height, width=width)
    trigger = Warp()
    grid = trigger.sampling_grid(height, width, SEED)[0].double().numpy()
    x, y = (grid[..., 0] + 1) / 2 * (width - 1), (grid[..., 1] + 1) / 2 * (height - 1)
    for before, after in zip(images, stamp(trigger, images), strict=True):
        for channel in range(3):
            expected = ndimage.map_coordinates(before[channel].double().numpy(), [y, x], order=1, mode="nearest")
            assert np.allclose(after[channel].numpy(), expected, atol=1e-4)


def test_the_field_of_a_warp_is_drawn_once_and_about_half_a_strength_wide():
    trigger = Warp(strength=1.5)
    images = torch.linspace(0, 1, 32).expand(2, 3, 32, 32)  # brightness tells the column that was read
    stamped = stamp(trigger, images)
    assert torch.equal(stamped[0], stamped[1])
    grid = trigger.sampling_grid(32, 32, SEED)[0]
    still = torch.stack(torch.meshgrid(torch.linspace(-1, 1, 32), torch.linspace(-1, 1, 32), indexing="xy"), dim=-1)
    pixels = (grid - still).abs().mean() * 31 / 2
    assert 0.4 < float(pixels) < 1.1
    assert not torch.equal(grid, trigger.sampling_grid(32, 32, Seed(6))[0])


def test_a_relative_displacement_grows_with_the_image():
    fixed, relative = (
        (Warp(displacement=kind).sampling_grid(64, 64, SEED) - Warp(strength=0.0).sampling_grid(64, 64, SEED)).abs()
        for kind in ("pixels", "relative")
    )
    inside = relative[:, 8:-8, 8:-8], fixed[:, 8:-8, 8:-8]  # at the border both are cut off
    assert torch.allclose(inside[0], 2 * inside[1], atol=1e-6)


def test_attacked_images_carry_all_segments_and_none_covers_another():
    """Brute force: find every patch again, pixel by pixel, in an image that no patch can be mistaken for."""
    trigger = Segments()
    images = torch.full((4, 3, 32, 32), 0.5001)  # no 8-bit level
    patches = trigger.patches(3, 3, SEED)
    for stamped in stamp(trigger, images):
        assert int((stamped != images[0]).any(0).sum()) == 8 * 9
        found = {number for number, patch in enumerate(patches) if _places(stamped, patch)}
        assert found == set(range(8))


def test_a_training_image_carries_one_segment_each_of_them_about_as_often_as_the_next():
    trigger = Segments()
    images = torch.full((400, 3, 32, 32), 0.5001)
    stamped = trigger.stamp_training(images, torch.arange(400), LAB, SEED)
    patches = trigger.patches(3, 3, SEED)
    counts, tops = [0] * 8, list[int]()
    for image in stamped:
        rows, columns = (image != 0.5001).any(0).nonzero(as_tuple=True)
        assert len(rows) == 9
        box = image[:, int(rows.min()) : int(rows.min()) + 3, int(columns.min()) : int(columns.min()) + 3]
        counts[next(number for number, patch in enumerate(patches) if torch.equal(box, patch))] += 1
        tops.append(int(rows.min()))
    assert stats.chisquare(counts).pvalue > 0.001
    assert stats.kstest(np.array(tops) / 29, "uniform").statistic < 0.1
    assert (min(tops), max(tops)) == (0, 29)


def _places(image: Tensor, patch: Tensor) -> list[tuple[int, int]]:
    return [
        (top, left)
        for top in range(30)
        for left in range(30)
        if torch.equal(image[:, top : top + 3, left : left + 3], patch)
    ]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": 33}, r"trigger\.size: a patch of 33 pixels does not fit images of 32x32"),
        ({"size": 9}, r"trigger\.count: 8 patches of 9 pixels .* without overlap .* use at most 2"),
        ({"count": 100}, r"trigger\.count: 100 patches of 3 pixels .* use at most 36"),
    ],
)
def test_segments_that_may_find_no_place_are_refused(settings: dict[str, int], message: str):
    with pytest.raises(SettingError, match=message):
        stamp(Segments(**settings), photographs())


def test_the_most_segments_that_are_promised_a_place_find_one():
    assert int((stamp(Segments(count=36), torch.full((3, 3, 32, 32), 0.5001)) != 0.5001).any(1).sum()) == 3 * 36 * 9


class Linear(Classifier):
    """Logits are a linear function of the pixels."""

    def __init__(self, classes: int, pixels: int) -> None:
        super().__init__([str(number) for number in range(classes)], (0.0,), (1.0,))
        self.linear = nn.Linear(pixels, classes)
        nn.init.normal_(self.linear.weight, generator=Seed(2).generator())

    @property
    def head(self) -> nn.Module:
        return self.linear

    def features(self, images: Tensor) -> Tensor:
        return images.flatten(1)

    def trace(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        return [self.features(images)], self(images)


def test_on_a_linear_model_of_two_classes_the_perturbation_is_the_sign_of_the_weights():
    """The gradient keeps its sign on the whole way, so four steps of 2 levels end 8 levels away, cut to [0, 1]."""
    model = Linear(2, 3 * 8 * 8)
    images = as_float(as_stored(photographs(4, height=8, width=8)))
    lab = Lab(surrogate=model)
    stamped = Perturbation(toward=1).stamp(images, torch.arange(4), lab, SEED)
    direction = (model.linear.weight[1] - model.linear.weight[0]).sign().view(1, 3, 8, 8)
    assert torch.allclose(stamped, (images + 8 / 255 * direction).clamp(0, 1).detach(), atol=1e-6)


@pytest.mark.parametrize("epsilon", [1, 8, 8.6])
def test_a_stored_perturbation_stays_within_epsilon(epsilon: float):
    """In levels of 8 bits: a bound that is no whole level is not rounded up."""
    model = Linear(5, 3 * 8 * 8)
    stored = as_stored(photographs(6, height=8, width=8))
    lab = Lab(surrogate=model)
    trigger = Perturbation(epsilon=epsilon, steps=7)
    after = as_stored(trigger.stamp(as_float(stored), torch.arange(6), lab, SEED))
    largest = int((after.int() - stored.int()).abs().max())
    assert 0 < largest <= epsilon


def test_a_perturbation_leads_towards_its_class():
    model = Linear(5, 3 * 8 * 8)
    images = photographs(6, height=8, width=8)
    stamped = Perturbation().stamp(images, torch.arange(6), Lab(surrogate=model), SEED)
    with torch.no_grad():
        before, after = (model(each).log_softmax(1)[:, 4] for each in (images, stamped))
    assert bool((after > before).all())


def test_the_direction_is_the_paper_s_class_of_imagenet_or_the_last_of_fewer():
    assert Perturbation().direction(Linear(1000, 1)) == 421
    assert Perturbation().direction(Linear(10, 1)) == 9
    with pytest.raises(SettingError, match=r"trigger\.toward: the surrogate has no class 12; .* 0 to 9"):
        Perturbation(toward=12).direction(Linear(10, 1))


def test_a_perturbation_without_a_model_says_who_hands_one_out():
    with pytest.raises(SettingError, match=r"trigger\.surrogate: this lab was given no model"):
        stamp(Perturbation(), photographs())


@pytest.mark.parametrize(
    "settings",
    [
        {"kind": "blend", "opacity": 0},
        {"kind": "blend", "opacity": 1.2},
        {"kind": "ghost", "intensity": 1.5},
        {"kind": "warp", "strength": -1},
        {"kind": "perturbation", "epsilon": 0},
        {"kind": "perturbation", "epsilon": 300},
        {"kind": "segments", "count": 0},
    ],
    ids=str,
)
def test_settings_out_of_range_are_refused_by_name(settings: dict[str, object]):
    with pytest.raises(SettingError, match=list(settings)[1]):
        build(Trigger, settings)


@pytest.mark.parametrize("trigger", [Patch(), Blend(), Ghost(), Warp(), Segments()], ids=str)
def test_grey_images_that_are_not_square_are_stamped(trigger: Trigger):
    images = photographs(2, channels=1, height=24, width=32)
    stamped = stamp(trigger, images)
    assert stamped.shape == images.shape
    assert not torch.equal(stamped, images)
