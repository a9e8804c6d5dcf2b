"""Cheap instances of any component: defaults, but for the settings that make it work long."""

from __future__ import annotations

from collections.abc import Iterable
from inspect import isclass
from typing import Any, Literal, cast, get_args, get_origin

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from bezoar.component import Component, Settings, build, members
from bezoar.errors import SettingError

CHEAP = {
    "steps": 3,
    "epochs": 2,
    "models": 2,
    "round": 2,
    "batch_size": 16,
    "poisons": 6,
    "trusted": 24,
    "train": 40,
    "test": 40,
    "width": 16,
    "growth": 16,
    "overlays": 8,
    "parts": 2,
}
"""By the name of a setting, or the last part of it (``teacher_steps``); defaults that are smaller stay."""

CRAFTING: Settings = {"substitutes": ["small_resnet"], "dropout": [0.2], "base_class": 1, "poisons": 2}
"""Triggerless attacks come with the paper's 18 large networks and a class that only CIFAR-10 has."""

EXAMPLES: dict[str, Settings] = {
    "bullseye_polytope": CRAFTING,
    "certifier_ladder": {"amplitude": 0.5, "poisons": 6},  # each calibration trains a model
    "convex_polytope": CRAFTING,
    "feature_collision": CRAFTING,
    "timm": {"name": "test_resnet"},
    "torchvision": {"name": "shufflenet_v2_x0_5"},
    "python": {"target": "bezoar.testing.toy:network"},
}
"""Settings for components that need some but are at home everywhere."""


class NeedsSettingsError(SettingError):
    """A component has settings without defaults that only its user knows."""


def instance(cls: type[Component]) -> Component:
    """A component of a class with its defaults, but cheap: few steps, small batches, nested components likewise.

    Raises:
        NeedsSettingsError: it has settings that only its user knows; the message names them.
    """
    return build(cls, _settings(cls, {}))


def variants(component: Component, *, settled: Iterable[str] = ()) -> list[Component]:
    """The component, and one more for every other choice of a setting that has a few named ones.

    Args:
        component: the first of them.
        settled: settings that stay as they are.
    """
    choices = {name: field.annotation for name, field in type(component).model_fields.items()}
    other = [
        component.replace(**{name: choice})
        for name, annotation in choices.items()
        if get_origin(annotation) is Literal and name not in settled
        for choice in get_args(annotation)
        if choice != getattr(component, name)
    ]
    return [component, *other]


def _settings(cls: type[Component], given: Settings) -> Settings:
    """Cheap settings of a class, laid over those that are given."""
    examples = EXAMPLES.get(cls.kind, {})
    chosen: Settings = {"kind": cls.kind, **given, **examples}
    needed: list[str] = []
    for name, field in cls.model_fields.items():
        if name in examples:
            continue
        default = given.get(name, field.get_default(call_default_factory=True, validated_data={}))
        if isinstance(default, Component):
            chosen[name] = _cheaper(default)
        elif isinstance(default, tuple) and any(isinstance(part, Component) for part in cast("tuple[Any]", default)):
            chosen[name] = [_cheaper(part) for part in cast("tuple[Component]", default)]
        elif _cheap(name) is not None:
            chosen[name] = _cheap(name) if default in (None, PydanticUndefined) else min(default, _cheap(name))
        elif default is PydanticUndefined:
            role = _role(field)
            if role is None:
                needed.append(name)
            else:
                chosen[name] = _settings(_simplest(role), {})
    if needed:
        raise NeedsSettingsError(f"{cls.kind} needs settings: {', '.join(needed)}")
    return chosen


def _cheaper(held: Component) -> Settings:
    """Cheap settings of a component that is held by another."""
    return _settings(type(held), {inner: getattr(held, inner) for inner in type(held).model_fields})


def _cheap(name: str) -> Any:
    return CHEAP.get(name, CHEAP.get(name.rpartition("_")[2]))


def _role(field: FieldInfo) -> type[Component] | None:
    """The role that a nested component must play, if the field holds one."""
    annotation: Any = field.annotation
    return annotation if isclass(annotation) and issubclass(annotation, Component) else None


def _simplest(role: type[Component]) -> type[Component]:
    """The member of a role with the fewest settings that needs none."""
    fitting = [cls for cls in members(role.family).values() if issubclass(cls, role)]
    free = [cls for cls in fitting if not any(field.is_required() for field in cls.model_fields.values())]
    if not free:
        raise NeedsSettingsError(f"no member of the {role.family} can be made without settings")
    return min(free, key=lambda cls: len(cls.model_fields))
