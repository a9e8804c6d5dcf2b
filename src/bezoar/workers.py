"""Games on several processes of this machine, or on a cluster, through Ray.

A worker plays whole games and finds the stages that games share in the store: what one worker makes the others wait
for and read. So on a cluster the store (``BEZOAR_HOME``) must lie in a folder that all machines see under one name,
bezoar must be installed on all of them, and the folders of data sets must be there. A worker that is killed, by hand
or by a machine that runs out of memory, has its game played again by another.
"""

from __future__ import annotations

import io
import logging
import os
import signal
import socket
import sys
import threading
import warnings
from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from bezoar.errors import SettingError, StoreError, StoreWarning
from bezoar.games.game import Game
from bezoar.games.referee import Referee
from bezoar.games.robustness import Robustness
from bezoar.lab import Lab
from bezoar.rows import Row
from bezoar.slices import Slice, TimeUpError
from bezoar.store import Store
from bezoar.sweep import Queue, Watcher, attempt, failed
from bezoar.tuning import tuned

logger = logging.getLogger(__name__)

RETRIES = 2
"""How often a game is played again whose worker has died."""

CONNECT_SECONDS = 10
"""How long a cluster may take to answer."""

OBJECT_STORE = 100 * 2**20
"""Bytes of shared memory that a Ray of our own takes: only settings and result rows pass through it."""


@dataclass(frozen=True)
class Played:
    """What a worker sends back: the row, and what it would have said to the person at the terminal."""

    row: Row
    warnings: list[str]


@dataclass(frozen=True)
class Crew:
    """Plays several games at once.

    Attributes:
        workers: how many; on a cluster None takes as many as it has room for.
        threads: of each worker, on which the floats of its models depend.
        gpus: the share of a graphics card that a game takes, so that several small trainings fit on one; 0 on a CPU.
        address: of a Ray cluster; None starts a Ray of our own on this machine, and ends it.
    """

    workers: int | None = None
    threads: int = 1
    gpus: float = 0
    address: str | None = None

    def play(self, queue: Queue, referee: Referee, watcher: Watcher) -> Iterator[Row]:
        """The rows of all games that a queue hands out, as they come.

        Raises:
            SettingError: Ray is missing or not to be reached, or the machines have no room for one worker.
            StoreError: a worker cannot write the store.
        """
        if queue.closed:  # nobody is woken for nothing
            return
        with _ray(self) as ray:
            player = self._remote(ray, _attempt)
            site = _Site.of(referee, self.threads)

            def begin(game: Game) -> Any:
                watcher.started(game)
                return player.remote(game, site)

            for reference, over in _handed_out(ray, _room(self, ray), queue.take, begin):
                row = _fetch(ray, reference, over, referee)
                yield row
                watcher.finished(over, row)

    def search(self, games: Sequence[Robustness], referee: Referee, limit: Slice) -> None:
        """Try settings for several games at once; whoever asks for a search then finds its trials in the store.

        A search that fails here does so again where it is asked for, which says why.

        Raises:
            SettingError: Ray is missing or not to be reached, or the machines have no room for one worker.
            TimeUpError: the slice is over.
        """
        missing = [game for game in games if not _searched(game, referee)]
        if len(missing) < 2 or self.workers == 1:  # whoever asks for it is as fast
            return
        limit.begin()
        with _ray(self) as ray:
            searcher = self._remote(ray, _search)
            site = _Site.of(referee, self.threads)
            waiting = iter(missing)
            done = _handed_out(
                ray,
                _room(self, ray),
                lambda _: next(waiting, None),
                lambda game: searcher.remote(game, site, limit.left),
            )
            for reference, _ in referee.lab.progress.track(done, "searches", len(missing)):
                with suppress(ray.exceptions.RayError):
                    for text in ray.get(reference):
                        warnings.warn(text, StoreWarning, stacklevel=2)

    def _remote(self, ray: Any, work: Callable[..., Any]) -> Any:
        """Some work, as a worker does it."""
        return ray.remote(num_cpus=self.threads, num_gpus=self.gpus, max_retries=RETRIES)(work)


@dataclass(frozen=True)
class _Site:
    """Where a worker works: what it makes its own referee from."""

    home: Path
    device: str
    folders: tuple[Path, ...]
    threads: int

    @staticmethod
    def of(referee: Referee, threads: int) -> _Site:
        """Where a worker of this referee's works."""
        folders = tuple(folder.resolve() for folder in referee.folders)
        return _Site(referee.store.root.parent.resolve(), referee.lab.device.type, folders, threads)


@contextmanager
def _at_work(site: _Site) -> Generator[tuple[Referee, list[str]]]:
    """A worker's own referee, and in the end what it would have said to the person at the terminal."""
    torch.set_num_threads(site.threads)
    said: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", StoreWarning)
        yield Referee(Store(site.home), Lab(torch.device(site.device)), site.folders), said
        said += [str(one.message) for one in caught if issubclass(one.category, StoreWarning)]


def _attempt(game: Game, site: _Site) -> Played:
    """Play one game; this runs in a worker."""
    with _at_work(site) as (referee, said):
        row = attempt(game, referee)
    return Played(row, said)


def _searched(game: Robustness, referee: Referee) -> bool:
    """Whether all trials of its search are in the store: nothing is tried to find out, but the model is trained."""
    over = Slice(1e-9)
    over.begin()
    try:
        tuned(game, referee, limit=over)
    except TimeUpError:
        return False
    return True


def _search(game: Robustness, site: _Site, minutes: float | None) -> list[str]:
    """Try settings for one game; this runs in a worker."""
    with _at_work(site) as (referee, said), suppress(TimeUpError):
        tuned(game, referee, limit=Slice(minutes))
    return said


def _handed_out(
    ray: Any, room: int, take: Callable[[Collection[Game]], Game | None], begin: Callable[[Any], Any]
) -> Iterator[tuple[Any, Game]]:
    """Hand out games while there is room, taken in view of those at work, and give each back when it is over."""
    running: dict[Any, Game] = {}
    while True:
        while len(running) < room and (game := take(running.values())) is not None:
            running[begin(game)] = game
        if not running:
            return
        done, _ = ray.wait(list(running))
        for reference in done:
            yield reference, running.pop(reference)


def _fetch(ray: Any, reference: Any, game: Game, referee: Referee) -> Row:
    """A worker's row; its warnings are given again, and a store that cannot be written ends the sweep."""
    try:
        played: Played = ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, StoreError):
            raise error.cause from None
        why = [*str(error.cause).strip().splitlines(), type(error.cause).__name__][0]
        return failed(game, referee, f"a worker cannot play it: {why}; are all its methods installed there?")
    except ray.exceptions.OutOfMemoryError:
        return failed(game, referee, "memory ran out, and Ray ended its worker; play fewer games at once")
    except ray.exceptions.RayError as error:
        return failed(game, referee, f"its worker died, and so did those that tried again ({type(error).__name__})")
    for text in played.warnings:
        warnings.warn(text, StoreWarning, stacklevel=2)
    if played.row["address"] != game.address(referee):
        return failed(game, referee, "a worker found other files of its data set than there are here")
    return played.row


def _room(crew: Crew, ray: Any) -> int:
    """How many games to have at work at once: what all machines have room for, each for itself."""
    machines: list[dict[str, float]] = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    fits = 0
    for there in machines:
        cards = int(there.get("GPU", 0) / crew.gpus + 1e-9) if crew.gpus else None
        cores = int(there.get("CPU", 0) // crew.threads)
        fits += cores if cards is None else min(cores, cards)
    if fits < 1:
        said = ", ".join(f"{there.get('CPU', 0):g} and {there.get('GPU', 0):g}" for there in machines)
        raise SettingError(
            f"workers: one takes {crew.threads} cores and {crew.gpus:g} graphics cards, and no machine has them: {said}"
        )
    return min(fits, crew.workers or fits)


@contextmanager
def _ray(crew: Crew) -> Generator[Any]:
    """Ray, of our own or a cluster's, and nothing of it afterwards.

    Raises:
        SettingError: it is not installed, or no cluster answers at the address.
    """
    if find_spec("ray") is None:
        raise SettingError("workers: several need Ray: pip install 'bezoar[ray]'")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing leaves this machine unasked
    import ray  # noqa: PLC0415 - an extra

    before = signal.getsignal(signal.SIGTERM)
    try:
        if crew.address is None:
            ray.init(
                "local",
                num_cpus=(crew.workers or 1) * crew.threads,
                num_gpus=torch.cuda.device_count() if crew.gpus else 0,
                object_store_memory=OBJECT_STORE,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
        else:
            _knock(crew.address)
            ray.init(crew.address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, ValueError, RuntimeError) as error:
        where = "Ray cannot be started here" if crew.address is None else f"no Ray answers at {crew.address!r}"
        raise SettingError(f"workers: {where} ({' '.join(str(error).split())})") from None
    if callable(before) and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, before)  # Ray's handlers print a stack trace
    with redirect_stdout(_Aside()) as stdout:
        try:
            yield ray
        finally:
            stdout.ending = True
            ray.shutdown()


class _Aside(io.TextIOBase):
    """Standard output, from which what Ray prints goes to the log instead.

    Its threads print there that a worker has died, which its game's row tells, and that Ray's processes were told to
    stop, as a process group is by `timeout`: up to a page of them, amid results or a live table. What it has held
    back it prints when it is ended.
    """

    def __init__(self) -> None:
        self._stream = sys.stdout
        self.ending = False

    def write(self, text: str, /) -> int:
        if self.ending or threading.current_thread().name.startswith("ray_"):
            logger.info(text)
            return len(text)
        return self._stream.write(text)

    def flush(self) -> None:
        self._stream.flush()


def _knock(address: str) -> None:
    """Raise OSError where nobody listens; Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if port.isdigit():
        socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()
