"""What every component must hold to: its settings, its description and its registration."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from inspect import getdoc
from typing import Any, cast

from pydantic import ValidationError

from bezoar.component import Component, build, canonical, members
from bezoar.errors import SettingError
from bezoar.testing.watch import Claim, require

NOBODY = "no_such_setting"


def it_is_registered_under_its_name(component: Component) -> None:
    """The registry gives this class back."""
    found = members(component.family).get(component.kind)
    require(found is type(component), f"among the {component.family}, {component.kind!r} is {found}")


def it_is_documented(component: Component) -> None:
    """The class has a docstring of its own, which begins with a sentence."""
    text = type(component).__doc__ or ""
    require(bool(text.strip()), "the class has no docstring")
    require("." in (getdoc(type(component)) or ""), "the docstring has no sentence that ends in a full stop")


def its_description_is_json(component: Component) -> None:
    """`describe` holds plain values."""
    described = component.describe()
    require(json.loads(canonical(described)) == described, f"JSON changes the description: {described}")


def its_description_makes_it_again(component: Component) -> None:
    """Settings survive the way to a file and back."""
    again = build(type(component), json.loads(canonical(component.describe())))
    require(again == component, f"{component.describe()} makes {again!r}")


def its_identity_names_a_revision_of_every_part(component: Component) -> None:
    """An address changes when any nested component is revised."""
    for kind in _kinds(component.identity()):
        require(re.fullmatch(r".+@[1-9]\d*", kind) is not None, f"{kind!r} has no revision")


def its_settings_cannot_be_changed(component: Component) -> None:
    """A component is frozen."""
    for name in type(component).model_fields:
        try:
            setattr(component, name, getattr(component, name))
        except ValidationError:
            continue
        require(False, f"the setting {name!r} can be assigned")


def an_unknown_setting_is_refused_by_name(component: Component) -> None:
    """A misspelt setting is an error, not silence."""
    try:
        build(type(component), {**component.describe(), NOBODY: 1})
    except SettingError as error:
        require(NOBODY in str(error), f"the message does not name the setting: {error}")
        return
    require(False, f"the setting {NOBODY!r} was accepted")


def _kinds(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        inner = cast("dict[str, Any]", value)
        if "kind" in inner:
            yield str(inner["kind"])
        for each in inner.values():
            yield from _kinds(each)


CLAIMS: tuple[Claim, ...] = (
    it_is_registered_under_its_name,
    it_is_documented,
    its_description_is_json,
    its_description_makes_it_again,
    its_identity_names_a_revision_of_every_part,
    its_settings_cannot_be_changed,
    an_unknown_setting_is_refused_by_name,
)
