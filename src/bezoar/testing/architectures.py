"""What every architecture must hold to."""

from __future__ import annotations

import torch

from bezoar.models.classifier import Classifier
from bezoar.roles import Architecture
from bezoar.seed import Seed
from bezoar.testing import toy
from bezoar.testing.watch import Claim, nothing_global_changes, other_generators, require, require_unchanged, state


def the_same_seed_gives_the_same_weights(architecture: Architecture) -> None:
    """Whatever the global generators are at."""
    first = state(_build(architecture))
    with other_generators():
        require_unchanged(first, state(_build(architecture)), "the network's ")


def another_seed_gives_other_weights(architecture: Architecture) -> None:
    """Initialisation is drawn."""
    first, second = state(_build(architecture)), state(_build(architecture, toy.SEED / "other"))
    require(first["weights"] != second["weights"], "two seeds gave the same weights")


def building_leaves_global_state_alone(architecture: Architecture) -> None:
    """Although layers are initialised from the global generator."""
    with nothing_global_changes():
        _build(architecture)


def logits_are_finite_and_one_for_each_class(architecture: Architecture) -> None:
    """A row [k] for each image; the classes are known by name."""
    model = _build(architecture)
    logits = model(toy.photographs())
    require(logits.shape == (6, len(toy.CLASSES)), f"6 images gave logits of the shape {tuple(logits.shape)}")
    require(bool(logits.isfinite().all()), "a logit is not finite")
    require(model.classes == toy.CLASSES, f"the classes are {model.classes}")


def logits_are_the_head_of_the_features(architecture: Architecture) -> None:
    """``forward(x) = head(features(x))``, and features are vectors."""
    model = _build(architecture).eval()
    with torch.no_grad():
        features, logits = model.features(toy.photographs()), model(toy.photographs())
        require(features.ndim == 2, f"features have {features.ndim} dimensions")
        require(torch.allclose(model.head(features), logits, atol=1e-6), "head(features(x)) is not forward(x)")


def one_image_goes_through_in_evaluation_mode(architecture: Architecture) -> None:
    """And is answered as it is among others."""
    model = _build(architecture).eval()
    images = toy.photographs()
    with torch.no_grad():
        require(
            torch.allclose(model(images[:1]), model(images)[:1], atol=1e-5), "an image's answer depends on the others"
        )


def there_are_stages(architecture: Architecture) -> None:
    """The outputs of the blocks, one tensor each, for every image."""
    stages = _build(architecture).eval().stages(toy.photographs())
    require(len(stages) > 0, "there is no stage")
    require(all(len(stage) == 6 for stage in stages), "a stage does not have one output for each image")


def gradients_reach_every_parameter(architecture: Architecture) -> None:
    """No weight is cut off, and pixels get a gradient too."""
    model, images = _build(architecture).train(), toy.photographs().requires_grad_()
    model(images).square().sum().backward()
    lost = [name for name, parameter in model.named_parameters() if parameter.requires_grad and parameter.grad is None]
    require(not lost, f"no gradient reaches {', '.join(lost)}")
    require(images.grad is not None, "no gradient reaches the pixels")


def _build(architecture: Architecture, seed: Seed = toy.SEED) -> Classifier:
    return architecture.build(toy.SHAPE, toy.CLASSES, seed)


CLAIMS: tuple[Claim, ...] = (
    the_same_seed_gives_the_same_weights,
    another_seed_gives_other_weights,
    building_leaves_global_state_alone,
    logits_are_finite_and_one_for_each_class,
    logits_are_the_head_of_the_features,
    one_image_goes_through_in_evaluation_mode,
    there_are_stages,
    gradients_reach_every_parameter,
)
