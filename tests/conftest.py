"""What all tests share."""

import random
from collections.abc import Iterator

import pytest
import torch
from jaxtyping import config


def _give_beartype_a_generator_of_its_own() -> None:
    """Beartype draws the item of a container that it checks; from Python's global generator unless it is imported so.

    The conformance tests watch that generator, and it is bezoar that they mean.
    """
    kept = random.getrandbits
    random.getrandbits = random.Random(0).getrandbits
    try:
        import beartype  # noqa: F401, PLC0415 - imported for what it keeps of `random`
    finally:
        random.getrandbits = kept


_give_beartype_a_generator_of_its_own()


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """The same floats whatever the machine, as far as threads decide, and a core for each process that runs tests."""
    torch.set_num_threads(1)


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Annotations are not checked while the test runs, as in a user's installation."""
    config.update("jaxtyping_disable", True)
    yield
    config.update("jaxtyping_disable", False)
