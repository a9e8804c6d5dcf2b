"""How a test file of a role is made of the claims in `bezoar.testing`: one case for each member, variant and claim."""

from collections.abc import Iterable

import pytest

from bezoar.component import Component, members
from bezoar.testing import Outcome, claims, held_to, instance, variants


def ready(family: str, *, leave_out: Iterable[str] = (), settled: Iterable[str] = ()) -> list[Component]:
    """A cheap instance of each member that can be made without its user, and its variants.

    Args:
        family: whose members.
        leave_out: members that are not wanted.
        settled: settings whose choices are tested elsewhere.
    """
    chosen = [cls for name, cls in members(family).items() if name not in leave_out]
    return [component for cls in chosen for component in variants(instance(cls), settled=settled)]


def cases(components: Iterable[Component]):
    """Parameters ``component, claim`` with ids such as ``patch(corner=top_right)-the_shape_is_kept``."""
    return pytest.mark.parametrize(
        ("component", "claim"),
        [
            pytest.param(component, claim, id=f"{name(component)}-{claim.__name__}")
            for component in components
            for claim in claims(component)
        ],
    )


def name(component: Component) -> str:
    """The kind, and the one choice in which a variant differs from its class's cheap instance."""
    plain = instance(type(component)).describe() if not needed(component) else component.describe()
    changed = {key: value for key, value in component.describe().items() if value != plain[key]}
    return component.kind + "".join(f"({key}={value})" for key, value in changed.items())


def needed(component: Component) -> bool:
    """Whether its class cannot be made without a user."""
    return any(field.is_required() for field in type(component).model_fields.values())


def hold(component: Component, claim) -> None:
    """The body of every case."""
    outcome: Outcome = held_to(claim, component)
    assert not outcome.failure, f"{component}: {outcome.claim}: {outcome.failure}"
