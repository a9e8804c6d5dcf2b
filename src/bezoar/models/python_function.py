"""A network of one's own as an architecture: whatever a Python function returns."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field
from torch import nn

from bezoar.component import register
from bezoar.errors import SettingError
from bezoar.models.foreign import ForeignArchitecture, Scale, Shape, constructing


@register("python")
class PythonFunction(ForeignArchitecture):
    """Whatever a function of one's own returns: ``package.module:function``.

    It is called as ``function(num_classes=...)``, or as ``function()`` if it takes no such
    argument. Its module is looked for in the current folder as well.
    """

    target: Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_][\w.]*$")]
    mean: tuple[float, ...] = (0.0,)
    std: tuple[Scale, ...] = (1.0,)

    def network(self, shape: Shape, classes: int) -> nn.Module:
        """What the function returns."""
        del shape
        with _current_folder(), constructing(self.target):
            function = self._function()
            parameters = inspect.signature(function).parameters.values()
            takes = any(one.name == "num_classes" or one.kind is one.VAR_KEYWORD for one in parameters)
            made = function(num_classes=classes) if takes else function()
        if not isinstance(made, nn.Module):
            raise SettingError(f"{self.target} returned a {type(made).__name__}; it must return a torch.nn.Module")
        return made

    def native_shape(self) -> Shape | None:
        """A function does not say."""
        return None

    def _function(self) -> Callable[..., object]:
        module_name, _, path = self.target.partition(":")
        try:
            found: Any = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            raise SettingError(
                f"{self.target}: there is no module {error.name!r}; install it or start bezoar in its folder"
            ) from error
        for name in path.split("."):
            if not hasattr(found, name):
                near = get_close_matches(name, dir(found), n=1)
                raise SettingError(
                    f"{self.target}: there is no {name!r} in it" + (f"; did you mean {near[0]!r}?" if near else "")
                )
            found = getattr(found, name)
        if not callable(found):
            raise SettingError(f"{self.target} is of type {type(found).__name__}, not a function that makes a network")
        return found


@contextmanager
def _current_folder() -> Generator[None]:
    """Let the user's own modules be found, after all installed ones, while they are imported and called."""
    here = str(Path.cwd())
    sys.path.append(here)
    try:
        yield
    finally:
        sys.path.remove(here)
