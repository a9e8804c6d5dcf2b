"""The command line: the application, and how errors are shown; commands stand in the modules that are added here."""

from __future__ import annotations

import math
import signal
import sys
import threading
import time
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from bezoar.cli.commands import commands
from bezoar.cli.datasets import datasets
from bezoar.cli.playing import playing
from bezoar.cli.storing import store
from bezoar.errors import BezoarError, StoreWarning

STOPPED = "bezoar: stopped; what is finished is kept, and the same command goes on from there\n"


AT_THE_HEELS = 5
"""Seconds in which a further SIGTERM is taken for the same one."""


class _Stop:
    """What SIGTERM does: the same as Ctrl-C, which ends a command with another status."""

    def __init__(self) -> None:
        self.status = 130
        self._told = -math.inf

    def __call__(self, *_: object) -> None:
        """End what the main thread does; a second signal at the heels of the first (`timeout` sends one) is no news.

        Raises:
            KeyboardInterrupt: unless it is no news. No game takes it for a failure, and Ray hands on nothing else.
        """
        now = time.monotonic()
        if now - self._told < AT_THE_HEELS:
            return
        self._told, self.status = now, 143
        raise KeyboardInterrupt


@contextmanager
def _terminable(stop: _Stop) -> Generator[None]:
    """SIGTERM ends what runs inside as Ctrl-C does, so that no worker is left behind; afterwards it is as before."""
    if threading.current_thread() is not threading.main_thread():  # no other may set handlers
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class _Commands(TyperGroup):
    """Commands whose errors are one message on stderr and exit status 2, never a traceback.

    Ctrl-C is one message and status 130, SIGTERM one and 143.
    """

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        stop = _Stop()
        try:
            with _terminable(stop):
                return super().invoke(ctx)
        except BezoarError as error:
            sys.stderr.write(f"bezoar: {error}\n")
            raise typer.Exit(2) from None
        except KeyboardInterrupt:
            sys.stderr.write(STOPPED)
            raise typer.Exit(stop.status) from None


app = typer.Typer(
    name="bezoar",
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""Find, measure and undo data poisoning of image classifiers.

    Begin with 'bezoar demo': it poisons, detects and repairs a classifier before your eyes.
    """,
)


def _print_version(asked: bool) -> bool:
    if asked:
        import bezoar  # noqa: PLC0415

        sys.stdout.write(f"bezoar {bezoar.__version__}\n")
        raise typer.Exit
    return asked


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version and exit.")
    ] = False,
) -> None:
    """Find, measure and undo data poisoning of image classifiers."""
    del version


app.add_typer(commands)
app.add_typer(datasets)
app.add_typer(playing)
app.add_typer(store, name="store")


def main() -> None:
    """Entry point of the ``bezoar`` command."""
    warnings.showwarning = _say_warning
    app()


def _say_warning(message: Warning | str, category: type[Warning], *_: Any) -> None:
    """A warning as one line, without the place in the code that raised it."""
    name = "warning" if issubclass(category, StoreWarning) else category.__name__
    sys.stderr.write(f"bezoar: {name}: {message}\n")
