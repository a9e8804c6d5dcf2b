"""Walls: what a player can reach, and what its module may import."""

import ast
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest
import torch

import bezoar
from bezoar.errors import SettingError
from bezoar.lab import Lab, Progress, Silence
from bezoar.models.resnet import SmallResNet
from bezoar.seed import Seed
from bezoar.testing import toy
from bezoar.training.sgd import Sgd

SOURCE = Path(bezoar.__file__).parent
FORBIDDEN = ("store", "probe", "attack", "poison", "referee", "target", "test")


def imports(package: str) -> Iterator[tuple[str, str]]:
    """(file, imported module) for every import statement below a package, wherever it stands in the file."""
    for path in sorted((SOURCE / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                yield from ((path.name, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path}: a relative import"
                yield path.name, str(node.module)
                yield from ((path.name, f"{node.module}.{alias.name}") for alias in node.names)


def test_a_lab_leads_to_no_store_no_probe_and_no_attack():
    lab = toy.lab()
    assert {field.name for field in fields(Lab)} == {
        "device",
        "progress",
        "architecture",
        "trainer",
        "surrogate",
        "substitutes",
    }
    reachable = {name for name in dir(lab) if not name.startswith("__")}
    reachable |= {name for part in (lab.architecture, lab.trainer) for name in type(part).model_fields}
    assert not {name for name in reachable for word in FORBIDDEN if word in name}


@pytest.mark.parametrize(
    ("package", "walls"),
    [
        ("attacks", ("bezoar.defenses", "bezoar.games", "bezoar.store", "bezoar.report", "bezoar.cli")),
        ("defenses", ("bezoar.attacks", "bezoar.games", "bezoar.store", "bezoar.report", "bezoar.cli", "bezoar.data")),
        ("measure", ("bezoar.attacks", "bezoar.defenses", "bezoar.games")),
        ("models", ("bezoar.attacks", "bezoar.defenses", "bezoar.games", "bezoar.training")),
    ],
)
def test_no_module_reaches_over_its_wall(package: str, walls: tuple[str, ...]):
    found = list(imports(package))
    assert any(name.startswith("bezoar.") for _, name in found)
    assert [(file, name) for file, name in found if any(f"{name}.".startswith(f"{wall}.") for wall in walls)] == []


def test_no_module_needs_a_window_system():
    """X5 of the peers: an import that an editor wrote, and that fails where there is no display."""
    assert [(file, name) for file, name in imports(".") if name.partition(".")[0] in ("tkinter", "turtle")] == []


def test_a_lab_trains_by_the_public_recipe():
    recipe = Sgd(epochs=1, batch_size=32)
    lab = Lab(architecture=SmallResNet(width=16), trainer=recipe)
    mine = lab.train(toy.dataset(), Seed(1))
    directly = recipe.train(SmallResNet(width=16), toy.dataset(), Lab(), Seed(1))
    assert all(torch.equal(one, other) for one, other in zip(mine.parameters(), directly.parameters(), strict=True))


@pytest.mark.parametrize("lab", [Lab(), Lab(architecture=SmallResNet())])
def test_a_lab_without_a_recipe_says_so(lab: Lab):
    with pytest.raises(SettingError, match="has no recipe"):
        lab.train(toy.dataset(), Seed(1))


def test_silence_passes_everything_on():
    assert isinstance(Silence(), Progress)
    assert list(Silence().track(iter("abc"), "letters", 3)) == ["a", "b", "c"]
