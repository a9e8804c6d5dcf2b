"""An environment for another library beside ours, and a process in it that works on request.

TrojanZoo 2.0.3 needs matplotlib < 3.9, bezoar does not; nor does bezoar need anybody else's smoothing. So a virtual
environment holds the other library and the few packages that differ, and finds all the others (torch among them: the
very same files) in the environment we run in.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import bezoar

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Library:
    """What a peer is made of.

    Attributes:
        name: for people.
        folder: of its environment, below this one.
        packages: without their dependencies, which come from the environment we run in.
        imported: the module that shows that it works.
        script: what runs in the environment, below this folder.
    """

    name: str
    folder: str
    packages: tuple[str, ...]
    imported: str
    script: str


TROJANZOO = Library(
    "TrojanZoo",
    ".venv-trojanzoo",
    ("trojanzoo==2.0.3", "matplotlib<3.9", "scikit-image", "lazy-loader", "imageio", "tifffile", "tqdm"),
    "trojanvision.defenses",
    "trojanzoo_peer.py",
)
ART = Library(
    "adversarial-robustness-toolbox",
    ".venv-art",
    ("adversarial-robustness-toolbox==1.20.1", "statsmodels", "patsy", "six", "tqdm"),
    "art.estimators.certification.randomized_smoothing, statsmodels.stats.proportion",
    "art_peer.py",
)


class PeerError(Exception):
    """The other library cannot be used here; the text says why."""


def environment(library: Library) -> Path:
    """The interpreter of the library's environment, which is made at the first call and when ours has changed.

    Raises:
        PeerError: it cannot be made, or the library cannot be imported in it.
    """
    folder = HERE / library.folder
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    ours = dict.fromkeys([sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), _source()])
    wanted = json.dumps(
        {"packages": library.packages, "ours": list(ours), "torch": torch.__version__, "python": sys.version}
    )
    ready = folder / "ready.json"
    if ready.exists() and ready.read_text() == wanted:
        return python
    sys.stderr.write(f"  making {folder.name} for {library.name} ...\n")
    try:
        venv.create(folder, with_pip=True, clear=True)
        (folder / ".gitignore").write_text("*\n")
    except (OSError, subprocess.CalledProcessError) as error:
        raise PeerError(f"no virtual environment can be made: {error}") from None
    run([str(python), "-m", "pip", "install", "--quiet", "--no-deps", "--only-binary=:all:", *library.packages])
    site = Path(run([str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]).strip())
    (site / "ours.pth").write_text("".join(f"{path}\n" for path in ours))
    run([str(python), "-c", f"import {library.imported}"])
    ready.write_text(wanted)
    return python


def _source() -> str:
    """The folder that holds bezoar, which may be installed in place."""
    return str(Path(bezoar.__file__).parents[1])


def run(command: list[str]) -> str:
    """What a command prints.

    Raises:
        PeerError: it fails; the message ends with the last line of its stderr.
    """
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no message"]
        raise PeerError(f"{Path(command[0]).name} {' '.join(command[1:4])} failed: {lines[-1]}")
    return done.stdout


class Peer:
    """Another library in a process of its own that stays, so that its imports are not timed and rounds can alternate.

    Args:
        job: a folder with ``settings.json`` and whatever else the library's script reads.
        library: which one.

    Raises:
        PeerError: the environment cannot be made or the process does not start.
    """

    def __init__(self, job: Path, library: Library) -> None:
        self.job, self.library = job, library
        python = environment(library)
        threads = str(torch.get_num_threads())
        self.log = (job / "peer.log").open("w+")
        self.process = subprocess.Popen(
            [str(python), str(HERE / library.script), str(job)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": threads},
        )
        self.versions = self._answer()

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """What the script answers to one request."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self.log.seek(0)
            raise PeerError(
                f"{self.library.name}'s process ended: " + (self.log.read().strip().splitlines() or ["no message"])[-1]
            )
        return json.loads(line)

    def close(self) -> None:
        """End the process."""
        if self.process.stdin is not None:
            self.process.stdin.close()
        self.process.wait()
        self.log.close()
