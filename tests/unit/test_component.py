"""Components: registration, nested roles, overrides, messages and identities."""

from abc import abstractmethod
from types import SimpleNamespace
from typing import Annotated, ClassVar

import pytest
from pydantic import Field

from bezoar import component
from bezoar.component import Component, assign, build, canonical, digest, members, override, register
from bezoar.errors import SettingError
from bezoar.roles import Trigger


@pytest.fixture
def orchard(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Two toy families: fruits, and baskets that hold one."""
    members("attacks")
    monkeypatch.setattr(component, "_registry", dict(component._registry))

    class Fruit(Component):
        family: ClassVar[str] = "fruits"

        @abstractmethod
        def taste(self) -> str: ...

    @register("apple", paper="Genesis 3")
    class Apple(Fruit):
        size: Annotated[int, Field(ge=1)] = 3
        colour: str = "red"

        def taste(self) -> str:
            return f"{self.size} {self.colour}"

    @register("pear", revision=4)
    class Pear(Fruit):
        ripe: bool = True

        def taste(self) -> str:
            return "soft"

    class Container(Component):
        family: ClassVar[str] = "containers"

    @register("basket")
    class Basket(Container):
        fruit: Fruit = Apple(size=7)
        label: str = ""
        weights: tuple[float, ...] = (1.0, 2.0)

    @register("crate")
    class Crate(Container):
        fruit: Fruit

    return SimpleNamespace(Fruit=Fruit, Apple=Apple, Pear=Pear, Container=Container, Basket=Basket, Crate=Crate)


def test_a_registered_class_knows_its_name_paper_and_revision(orchard: SimpleNamespace):
    assert members("fruits") == {"apple": orchard.Apple, "pear": orchard.Pear}
    assert (orchard.Apple.kind, orchard.Apple.paper, orchard.Apple.revision) == ("apple", "Genesis 3", 1)
    assert orchard.Pear.revision == 4


def test_one_name_cannot_be_taken_twice(orchard: SimpleNamespace):
    with pytest.raises(SettingError, match="two components are registered as 'apple' among the fruits"):

        @register("apple")
        class Crab(orchard.Fruit):
            def taste(self) -> str:
                return "sour"


def test_a_name_or_a_mapping_makes_a_member(orchard: SimpleNamespace):
    assert build(orchard.Fruit, "apple") == orchard.Apple()
    assert build(orchard.Fruit, {"kind": "apple", "size": 5}).taste() == "5 red"
    assert build(orchard.Apple, {"size": 5}).size == 5
    assert build(orchard.Container, {"kind": "basket", "fruit": "pear"}).fruit == orchard.Pear()


def test_a_setting_of_a_nested_default_can_be_changed_alone(orchard: SimpleNamespace):
    changed = build(orchard.Container, {"kind": "basket", "fruit": {"colour": "green"}})
    assert changed.fruit == orchard.Apple(size=7, colour="green")
    # naming the kind begins from that kind's own defaults
    assert build(orchard.Container, {"kind": "basket", "fruit": {"kind": "apple", "colour": "green"}}).fruit.size == 3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("aple", "unknown name 'aple' among the fruits; did you mean 'apple'\\? known: apple, pear"),
        ({"size": 3}, "'kind' is missing; known: apple, pear"),
        ({"kind": "apple", "sise": 3}, "unknown setting 'sise' of apple; did you mean 'size'\\? known: colour, size"),
        ({"kind": "apple", "size": 0}, "size: input should be greater than or equal to 1, but it is 0"),
        ({"kind": "apple", "size": "big"}, "size: input should be a valid integer.*but it is 'big'"),
    ],
)
def test_a_mistake_is_named_with_its_remedy(orchard: SimpleNamespace, settings, message: str):
    with pytest.raises(SettingError, match=message):
        build(orchard.Fruit, settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "crate"}, "fruit: this setting is needed and has no default"),
        ({"kind": "crate", "fruit": {"kind": "apple", "size": 0}}, r"fruit\.size: .*but it is 0"),
        ({"kind": "basket", "fruit": "plum"}, "fruit: unknown name 'plum' among the fruits"),
        ({"kind": "basket", "weights": ["heavy"]}, r"weights\.0: .*but it is 'heavy'"),
    ],
)
def test_a_nested_mistake_is_named_by_its_dotted_path(orchard: SimpleNamespace, settings, message: str):
    with pytest.raises(SettingError, match=message):
        build(orchard.Container, settings)


def test_every_mistake_is_told_at_once(orchard: SimpleNamespace):
    with pytest.raises(SettingError) as error:
        build(orchard.Fruit, {"kind": "apple", "size": 0, "colour": 5})
    assert [line.partition(":")[0] for line in str(error.value).splitlines()] == ["size", "colour"]


def test_a_member_of_another_family_cannot_stand_in(orchard: SimpleNamespace):
    with pytest.raises(SettingError, match="'basket' is one of the containers, not of the fruits"):
        build(orchard.Container, {"kind": "crate", "fruit": orchard.Basket()})


def test_braces_in_a_value_are_shown_as_they_stand(orchard: SimpleNamespace):
    with pytest.raises(SettingError, match=r"unknown name '\{0\}'"):
        build(orchard.Fruit, "{0}")


def test_settings_survive_description(orchard: SimpleNamespace):
    basket = orchard.Basket(fruit=orchard.Pear(ripe=False), label="x")
    assert basket.describe() == {
        "kind": "basket",
        "fruit": {"kind": "pear", "ripe": False},
        "label": "x",
        "weights": [1.0, 2.0],
    }
    assert build(orchard.Container, basket.describe()) == basket
    assert basket.replace(label="y").describe() == {**basket.describe(), "label": "y"}
    assert str(basket) == "basket(fruit=pear(ripe=False), label=x)"


def test_an_identity_changes_with_any_setting_and_any_nested_revision(orchard, monkeypatch: pytest.MonkeyPatch):
    basket = orchard.Basket()
    first = digest(basket.identity())
    assert basket.identity()["fruit"]["kind"] == "apple@1"
    assert digest(basket.replace(label="x").identity()) != first
    monkeypatch.setattr(orchard.Apple, "revision", 2)
    assert digest(basket.identity()) != first
    monkeypatch.setattr(orchard.Apple, "revision", 1)
    assert digest(basket.identity()) == first


def test_a_setting_at_its_default_has_the_address_of_one_that_is_not_given():
    """A whole number as the default of a float must not be told from the same number given."""
    for kind in members("triggers"):
        default = build(Trigger, kind)
        assert canonical(build(Trigger, default.describe()).identity()) == canonical(default.identity())


def test_bezoar_that_is_not_installed_says_so(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(component, "entry_points", lambda **_: ())
    component._load_everything.cache_clear()
    with pytest.raises(SettingError, match=r"bezoar is imported but not installed.*pip install -e \."):
        build(Trigger, "patch")
    monkeypatch.undo()
    assert "patch" in members("triggers")


def test_a_digest_does_not_depend_on_the_order_of_keys():
    one, other = {"a": 1, "b": {"c": 2, "d": [3, 4]}}, {"b": {"d": [3, 4], "c": 2}, "a": 1}
    assert canonical(one) == canonical(other) == '{"a":1,"b":{"c":2,"d":[3,4]}}'
    assert digest(one) == digest(other)
    assert digest(one) != digest({"a": 1, "b": {"c": 2, "d": [4, 3]}})
    assert len(digest(one)) == 32


def test_dotted_overrides_reach_nested_settings_and_leave_the_original_alone(orchard: SimpleNamespace):
    settings = {"kind": "basket", "fruit": "apple"}
    changed = override(settings, ["fruit.size=5", "label=null", "weights=[3, 4.5]", "label=a=b"])
    assert changed == {"kind": "basket", "fruit": {"kind": "apple", "size": 5}, "label": "a=b", "weights": [3, 4.5]}
    assert settings == {"kind": "basket", "fruit": "apple"}
    assert build(orchard.Container, changed).fruit == orchard.Apple(size=5)


def test_an_override_makes_the_mappings_on_its_way():
    settings: dict[str, object] = {}
    assign(settings, "attack.trigger.size", 5)
    assert settings == {"attack": {"trigger": {"size": 5}}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("size", "'size': a setting is written as name=value"),
        ("=5", "a setting is written as name=value"),
        ("size={", "size: '{' is not a value that YAML can read"),
        ("size.width=5", "size.width: 'size' is 3, which has no settings of its own"),
    ],
)
def test_a_wrong_override_is_explained(change: str, message: str):
    with pytest.raises(SettingError, match=message):
        override({"kind": "apple", "size": 3}, [change])
