"""A component is a described method: a frozen configuration together with the code that uses it.

Every attack, repairer, detector, trainer, architecture, data source and game is one. Registering
a class under a name makes it available to the command line, to YAML files, to the generated
documentation and to the conformance tests. A component may hold others as nested fields; they are
written as a name (``badnets``) or as a mapping (``{kind: badnets, poisons: 50}``).
"""

from __future__ import annotations

import importlib
import json
import pkgutil
from abc import ABC
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from hashlib import blake2b
from importlib.metadata import entry_points
from typing import Any, ClassVar, TypeVar, cast

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from bezoar.errors import SettingError, known

Settings = dict[str, Any]
ComponentClass = TypeVar("ComponentClass", bound="type[Component]")
This = TypeVar("This", bound="Component")
"""A component's own class; the run-time checks of the tests do not know `typing.Self`."""

_registry: dict[str, dict[str, type[Component]]] = {}


class Component(BaseModel, ABC):
    """Base of every described method.

    A role (an abstract subclass) sets `family`, the plural under which its members are listed; a
    member is a leaf class and is given `kind`, `paper` and `revision` by `register`.
    """

    # defaults are validated too, or a default of 8 and a given 8 (which becomes 8.0) would have two addresses
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)

    family: ClassVar[str] = ""
    kind: ClassVar[str] = ""
    paper: ClassVar[str] = ""
    revision: ClassVar[int] = 0
    added: ClassVar[frozenset[str]] = frozenset()
    """Settings that came after results were published: one at its default is no part of the identity, so that
    what was stored and committed before keeps its address."""

    @model_validator(mode="wrap")
    @classmethod
    def _resolve(cls: type[This], value: Any, handler: Callable[[Any], This]) -> This:
        """Turn a name or a mapping with a `kind` into the registered member that it describes."""
        if isinstance(value, Component):
            if isinstance(value, cls):
                return value
            raise _mistake(f"{value.kind!r} is one of the {value.family}, not of the {cls.family}")
        if isinstance(value, str):
            value = {"kind": value}
        if not isinstance(value, Mapping):
            raise _mistake("expected a name or a mapping of settings")
        given = dict(cast(Mapping[str, Any], value))
        kind = given.pop("kind", cls.kind)
        if kind == cls.kind and cls.kind:
            for name in given:
                if name not in cls.model_fields:
                    raise _mistake(f"unknown setting {name!r} of {kind}; {known(cls.model_fields, str(name))}")
            return handler(cls._with_nested_defaults(given))
        members_here = members(cls.family)
        if not kind:
            raise _mistake(f"'kind' is missing; {known(members_here, '')}")
        if kind not in members_here:
            raise _mistake(f"unknown name {kind!r} among the {cls.family}; {known(members_here, str(kind))}")
        member = members_here[kind]
        if not issubclass(member, cls):
            raise _mistake(f"{kind!r} cannot stand here: it is not a {cls.__name__}")
        return member.model_validate(given)

    @classmethod
    def _with_nested_defaults(cls, given: Settings) -> Settings:
        """Let ``trigger: {size: 5}`` change one setting of the default trigger, whatever its kind."""
        completed = dict(given)
        for name, field in cls.model_fields.items():
            default = field.get_default(call_default_factory=True, validated_data={})
            inner = completed.get(name)
            if isinstance(default, Component) and isinstance(inner, Mapping) and "kind" not in inner:
                completed[name] = {"kind": default.kind, **_shallow(default), **cast(Settings, inner)}
        return completed

    def describe(self) -> Settings:
        """The configuration as plain JSON values, every nested component with its `kind`."""
        return {"kind": self.kind, **{name: plain(getattr(self, name)) for name in type(self).model_fields}}

    def identity(self) -> Settings:
        """`describe`, with every nested kind as ``kind@revision``: what an address is made from."""
        fields = {
            name: plain(getattr(self, name), identity=True)
            for name, field in type(self).model_fields.items()
            if not (name in self.added and getattr(self, name) == field.default)
        }
        return {"kind": f"{self.kind}@{self.revision}", **fields}

    def replace(self: This, **changes: Any) -> This:
        """A copy with some settings changed, validated like a new one."""
        return build(type(self), {**self.describe(), **changes})

    def __str__(self) -> str:
        changed = [f"{name}={getattr(self, name)}" for name in type(self).model_fields if name in self.model_fields_set]
        return f"{self.kind}({', '.join(changed)})" if changed else self.kind


def _mistake(message: str) -> PydanticCustomError:
    """An error whose text is shown as it stands (braces are no placeholders in it)."""
    return PydanticCustomError("component", "{message}", {"message": message})


def _shallow(component: Component) -> Settings:
    return {name: getattr(component, name) for name in type(component).model_fields}


def plain(value: Any, *, identity: bool = False) -> Any:
    """A setting as JSON values: components as their `describe` or `identity`, also within lists."""
    if isinstance(value, Component):
        return value.identity() if identity else value.describe()
    if isinstance(value, (list, tuple)):
        return [plain(item, identity=identity) for item in cast(Sequence[Any], value)]
    return value


def canonical(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(value: Any) -> str:
    """32 hexadecimal digits of blake2b over the canonical JSON of a value."""
    return blake2b(canonical(value).encode(), digest_size=16).hexdigest()


def register(name: str, *, paper: str = "", revision: int = 1) -> Callable[[ComponentClass], ComponentClass]:
    """Make a concrete component known under a name, in the family of its role.

    Args:
        name: unique within the family; what users write.
        paper: where the method comes from, e.g. ``arXiv:1708.06733``.
        revision: raised whenever a change alters results, so that stored stages are made anew.
    """

    def add(cls: ComponentClass) -> ComponentClass:
        family = _registry.setdefault(cls.family, {})
        present = family.get(name)
        if present is not None and present.__qualname__ != cls.__qualname__:
            raise SettingError(
                f"two components are registered as {name!r} among the {cls.family}: "
                f"{present.__module__}, {cls.__module__}"
            )
        cls.kind, cls.paper, cls.revision = name, paper, revision
        family[name] = cls
        return cls

    return add


@cache
def _load_everything() -> None:
    """Import every module that an installed package offers under ``bezoar.components``.

    Raises:
        SettingError: no package does, not even bezoar.
    """
    points = entry_points(group="bezoar.components")
    if not points:
        raise SettingError("bezoar is imported but not installed, so its own methods are not found: pip install -e .")
    for point in points:
        package = point.load()
        for module in pkgutil.walk_packages(getattr(package, "__path__", []), package.__name__ + "."):
            importlib.import_module(module.name)


def families() -> tuple[str, ...]:
    """The families that have a member, sorted."""
    _load_everything()
    return tuple(sorted(_registry))


def members(family: str) -> dict[str, type[Component]]:
    """Name -> class of one family, sorted by name."""
    _load_everything()
    return dict(sorted(_registry.get(family, {}).items()))


Built = TypeVar("Built", bound=Component)


def build(role: type[Built], settings: str | Mapping[str, Any] | Component) -> Built:
    """Make a component from a name or settings, e.g. ``build(Attack, {"kind": "badnets", "poisons": 50})``.

    Raises:
        SettingError: an unknown name or setting, or a value out of range; the message names it.
    """
    try:
        return role.model_validate(settings)
    except ValidationError as error:
        raise SettingError(_explain(error)) from None


def _explain(error: ValidationError) -> str:
    """One line per mistake: the dotted setting, the value given and what would be right."""
    lines: list[str] = []
    for detail in error.errors(include_url=False):
        where = ".".join(str(part) for part in detail["loc"])
        if detail["type"] == "missing":
            lines.append(f"{where}: this setting is needed and has no default")
        elif detail["type"] in ("component", "value_error"):  # a message of bezoar's own, as it stands
            text = str(detail.get("ctx", {}).get("error", detail["msg"]))
            lines.append(f"{where}: {text}" if where else text)
        else:
            lines.append(f"{where}: {detail['msg'][:1].lower()}{detail['msg'][1:]}, but it is {detail['input']!r}")
    return "\n".join(dict.fromkeys(lines))


def override(settings: Settings, changes: Sequence[str]) -> Settings:
    """Apply ``attack.trigger.size=5``-like changes to nested settings; values are read as YAML.

    Raises:
        SettingError: a change has no ``=``, or walks through something that is no mapping.
    """
    changed = cast(Settings, json.loads(json.dumps(settings)))
    for change in changes:
        path, equals, text = change.partition("=")
        if not equals or not path.strip():
            raise SettingError(f"{change!r}: a setting is written as name=value, e.g. attack.poisons=50")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            raise SettingError(f"{path}: {text!r} is not a value that YAML can read") from None
        assign(changed, path.strip(), value)
    return changed


def assign(settings: Settings, path: str, value: Any) -> None:
    """Set one dotted field in nested settings, in place; a plain name on the way becomes a mapping.

    In a list, as of a cascade's tiers, a number says which element: ``detector.tiers.0.steps``.
    """
    *parents, last = path.split(".")
    here: Settings | list[Any] = settings
    for parent in parents:
        inner = _part(here, parent, path)
        if inner is None:
            inner = {}
        elif isinstance(inner, str):
            inner = {"kind": inner}
        if not isinstance(inner, (dict, list)):
            raise SettingError(f"{path}: {parent!r} is {inner!r}, which has no settings of its own")
        _put(here, parent, inner)
        here = cast("Settings | list[Any]", inner)
    _part(here, last, path)
    _put(here, last, value)


def _part(here: Settings | list[Any], name: str, path: str) -> Any:
    """One setting, or one element of a list by its number from 0; None for a setting that is not there yet."""
    if not isinstance(here, list):
        return here.get(name)
    if not name.isdigit() or int(name) >= len(here):
        raise SettingError(f"{path}: {name!r} is no place in a list of {len(here)}; they are counted from 0")
    return here[int(name)]


def _put(here: Settings | list[Any], name: str, value: Any) -> None:
    if isinstance(here, list):
        here[int(name)] = value
    else:
        here[name] = value
