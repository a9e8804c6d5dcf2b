"""What every repairer must hold to."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from bezoar.errors import BezoarError
from bezoar.models.classifier import Classifier
from bezoar.roles import Repairer
from bezoar.testing import toy
from bezoar.testing.watch import (
    Claim,
    hooks,
    other_generators,
    pixels,
    remembered,
    require,
    require_unchanged,
    state,
    surroundings,
)


def a_repair_leaves_its_input_alone(repairer: Repairer) -> None:
    """Weights, buffers, modes, flags, gradients and hooks of the suspect, and the trusted images."""
    suspect, trusted = toy.suspect(), toy.trusted()
    before, images = state(suspect), pixels(trusted)
    for _ in repairer.repair(suspect, trusted, toy.lab(), toy.SEED):
        pass
    require_unchanged(before, state(suspect), "the suspect's ")
    require_unchanged(images, pixels(trusted), "the trusted ")


def it_yields_as_many_models_as_it_says(repairer: Repairer) -> None:
    """`length` is what progress bars and the referee count on."""
    count = sum(1 for _ in _repair(repairer))
    require(count == repairer.length > 0, f"length is {repairer.length}, but {count} models came")


def it_yields_one_student_in_evaluation_mode(repairer: Repairer) -> None:
    """Always the same object, and not the suspect; nothing in it is in training mode while one looks."""
    suspect = toy.suspect()
    students: list[Classifier] = []
    for student in repairer.repair(suspect, toy.trusted(), toy.lab(), toy.SEED):
        require(student is not suspect, "the student is the suspect itself")
        require(not any(layer.training for layer in student.modules()), "a layer of the student is in training mode")
        students.append(student)
    require(all(student is students[0] for student in students), "the student is not always the same object")


def the_student_shares_no_memory_with_the_suspect(repairer: Repairer) -> None:
    """Whoever goes on with the student cannot change the suspect."""
    suspect = toy.suspect()
    student = next(iter(repairer.repair(suspect, toy.trusted(), toy.lab(), toy.SEED)))
    shared = _memory(suspect) & _memory(student)
    require(not shared, f"{len(shared)} tensors lie in the same memory")


def the_student_is_a_model_of_the_same_form(repairer: Repairer) -> None:
    """The same keys, shapes, classes and normalisation."""
    suspect, student = toy.suspect(), _student(repairer)
    shapes = [{name: tensor.shape for name, tensor in model.state_dict().items()} for model in (suspect, student)]
    require(shapes[0] == shapes[1], "keys or shapes of the weights changed")
    require(student.classes == suspect.classes, "the classes changed")
    require(bool((student.mean == suspect.mean).all() and (student.std == suspect.std).all()), "normalisation changed")
    require(not hooks(student), f"hooks are left on the student: {hooks(student)}")


def the_student_changes_and_stays_finite(repairer: Repairer) -> None:
    """A weight or a running average moves, and none leaves the numbers."""
    student = _student(repairer)
    before, after = state(toy.suspect()), state(student)
    moved = before["weights"] != after["weights"] or before["buffers"] != after["buffers"]
    require(moved, "nothing in the student differs from the suspect")
    broken = [name for name, tensor in student.state_dict().items() if not tensor.isfinite().all()]
    require(not broken, f"not finite: {', '.join(broken)}")


def few_trusted_images_are_enough_or_refused_in_words(repairer: Repairer) -> None:
    """None of some class, one class alone, or a single image, on which batch normalisation cannot train."""
    trusted = toy.trusted()
    for few in (trusted.labels != 1, trusted.labels == 1, torch.arange(len(trusted)) == 0):
        suspect = toy.suspect()
        try:
            *_, student = repairer.repair(suspect, trusted.take(few.nonzero()[:, 0]), toy.lab(), toy.SEED)
        except BezoarError:
            student = suspect
        broken = [name for name, tensor in student.state_dict().items() if not tensor.isfinite().all()]
        require(not broken, f"with {int(few.sum())} images not finite: {', '.join(broken)}")


def weights_that_are_no_numbers_are_refused_in_words(repairer: Repairer) -> None:
    """Rather than handed back as a repaired model; the suspect keeps them."""
    suspect = toy.suspect()
    with torch.no_grad():
        next(iter(suspect.head.parameters())).fill_(torch.nan)
    try:
        next(iter(repairer.repair(suspect, toy.trusted(), toy.lab(), toy.SEED)))
    except BezoarError as refusal:
        require("finite" in str(refusal), f"the refusal does not say why: {refusal}")
    else:
        require(False, "a suspect whose weights are no numbers is repaired without a word")
    require(bool(next(iter(suspect.head.parameters())).isnan().all()), "the suspect's weights changed")


def the_same_seed_repairs_alike(repairer: Repairer) -> None:
    """Whatever the global generators are at."""
    first = state(_student(repairer))
    with other_generators():
        require_unchanged(first, state(_last(repairer)), "the student's ")


def global_state_is_as_before_whenever_one_looks(repairer: Repairer) -> None:
    """After every step, while the iterator waits, and at its end."""
    before = surroundings()
    for number, _ in enumerate(_repair(repairer), start=1):
        require_unchanged(before, surroundings(), f"after model {number}: ")
    require_unchanged(before, surroundings(), "at the end: ")


def an_early_break_leaves_nothing_behind(repairer: Repairer) -> None:
    """Of an iterator that is abandoned after one model: neither in global state nor on suspect or student."""
    suspect, here = toy.suspect(), surroundings()
    before = state(suspect)
    models = repairer.repair(suspect, toy.trusted(), toy.lab(), toy.SEED)
    student = next(iter(models))
    close = getattr(models, "close", None)
    if close is not None:
        close()
    del models
    require_unchanged(here, surroundings())
    require_unchanged(before, state(suspect), "the suspect's ")
    require(not hooks(student), f"hooks are left on the student: {hooks(student)}")


def _repair(repairer: Repairer) -> Iterator[Classifier]:
    return repairer.repair(toy.suspect(), toy.trusted(), toy.lab(), toy.SEED)


def _last(repairer: Repairer) -> Classifier:
    *_, student = _repair(repairer)
    return student


_student = remembered(_last)


def _memory(model: Classifier) -> set[int]:
    return {tensor.data_ptr() for tensor in (*model.parameters(), *model.buffers()) if tensor.numel()}


CLAIMS: tuple[Claim, ...] = (
    a_repair_leaves_its_input_alone,
    it_yields_as_many_models_as_it_says,
    it_yields_one_student_in_evaluation_mode,
    the_student_shares_no_memory_with_the_suspect,
    the_student_is_a_model_of_the_same_form,
    the_student_changes_and_stays_finite,
    few_trusted_images_are_enough_or_refused_in_words,
    weights_that_are_no_numbers_are_refused_in_words,
    the_same_seed_repairs_alike,
    global_state_is_as_before_whenever_one_looks,
    an_early_break_leaves_nothing_behind,
)
