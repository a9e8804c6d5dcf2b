"""What every trainer must hold to."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import PrivateAttr
from torch.nn import functional

from bezoar.models.classifier import Classifier
from bezoar.records import as_float
from bezoar.roles import Architecture, Trainer
from bezoar.seed import Seed
from bezoar.testing import toy
from bezoar.testing.watch import (
    Claim,
    bits,
    hooks,
    nothing_global_changes,
    other_generators,
    pixels,
    remembered,
    require,
    require_unchanged,
    state,
)


class _Recorder(Architecture):
    """The toy architecture, which remembers the weights that it began with."""

    kind: ClassVar[str] = "recorder"

    _initial: set[bytes] = PrivateAttr(default_factory=set[bytes])

    @property
    def initial(self) -> set[bytes]:
        """The bits of every parameter as it was initialised, of all networks if there are several."""
        return self._initial

    def build(self, shape: tuple[int, int, int], classes: tuple[str, ...], seed: Seed) -> Classifier:
        """A toy network."""
        model = toy.architecture().build(shape, classes, seed)
        self._initial.update(bits(parameter) for parameter in model.parameters())
        return model


def the_same_seed_trains_the_same_model(trainer: Trainer) -> None:
    """Whatever the global generators are at."""
    first = state(_model(trainer))
    with other_generators():
        require_unchanged(first, state(_train(trainer)), "the model's ")


def another_seed_trains_another_model(trainer: Trainer) -> None:
    """Initialisation and order are drawn."""
    first, second = state(_model(trainer)), state(_train(trainer, toy.SEED / "other"))
    require(first["weights"] != second["weights"], "two seeds trained the same model")


def every_parameter_is_trained(trainer: Trainer) -> None:
    """None stays as it was initialised."""
    recorder = _Recorder()
    model = trainer.train(recorder, toy.dataset(), toy.lab(), toy.SEED)
    still = [name for name, p in model.named_parameters() if p.requires_grad and bits(p) in recorder.initial]
    require(not still, f"did not move: {', '.join(still)}")


def the_model_is_returned_ready_for_use(trainer: Trainer) -> None:
    """In evaluation mode, without hooks, as a classifier of the data's classes."""
    model = _model(trainer)
    require(not any(layer.training for layer in model.modules()), "a layer is in training mode")
    require(not hooks(model), f"hooks are left: {hooks(model)}")
    require(model.classes == toy.CLASSES, f"the classes are {model.classes}")


def the_loss_is_finite(trainer: Trainer) -> None:
    """As are all weights."""
    model, data = _model(trainer), toy.dataset()
    with torch.no_grad():
        loss = functional.cross_entropy(model(as_float(data.images())), data.labels)
    require(bool(loss.isfinite()), f"the loss on the training images is {float(loss)}")
    broken = [name for name, tensor in model.state_dict().items() if not tensor.isfinite().all()]
    require(not broken, f"not finite: {', '.join(broken)}")


def training_leaves_data_and_global_state_alone(trainer: Trainer) -> None:
    """Augmentation works on copies, and dropout on streams of its own."""
    data = toy.dataset()
    before = pixels(data)
    with nothing_global_changes():
        trainer.train(toy.architecture(), data, toy.lab(), toy.SEED)
    require_unchanged(before, pixels(data), "the data's ")


def _train(trainer: Trainer, seed: Seed = toy.SEED) -> Classifier:
    return trainer.train(toy.architecture(), toy.dataset(), toy.lab(), seed)


_model = remembered(_train)


CLAIMS: tuple[Claim, ...] = (
    the_same_seed_trains_the_same_model,
    another_seed_trains_another_model,
    every_parameter_is_trained,
    the_model_is_returned_ready_for_use,
    the_loss_is_finite,
    training_leaves_data_and_global_state_alone,
)
