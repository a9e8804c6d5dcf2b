"""An environment for TrojanZoo beside ours, and a process in it that inverts triggers on request.

TrojanZoo 2.0.3 needs matplotlib < 3.9, bezoar does not. So a virtual environment holds TrojanZoo and the few packages
that differ, and finds all the others (torch among them: the very same files) in the environment we run in.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from typing import Any

import torch

import bezoar

HERE = Path(__file__).parent
ENVIRONMENT = HERE / ".venv-trojanzoo"
PACKAGES = ("trojanzoo==2.0.3", "matplotlib<3.9", "scikit-image", "lazy-loader", "imageio", "tifffile", "tqdm")
"""Without their dependencies, which come from the environment we run in."""


class PeerError(Exception):
    """TrojanZoo cannot be used here; the text says why."""


def environment() -> Path:
    """The interpreter of TrojanZoo's environment, which is made at the first call and when ours has changed.

    Raises:
        PeerError: it cannot be made, or TrojanZoo cannot be imported in it.
    """
    python = ENVIRONMENT / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    ours = dict.fromkeys([sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), _source()])
    wanted = json.dumps({"packages": PACKAGES, "ours": list(ours), "torch": torch.__version__, "python": sys.version})
    ready = ENVIRONMENT / "ready.json"
    if ready.exists() and ready.read_text() == wanted:
        return python
    sys.stderr.write(f"  making {ENVIRONMENT.name} for TrojanZoo ...\n")
    try:
        venv.create(ENVIRONMENT, with_pip=True, clear=True)
        (ENVIRONMENT / ".gitignore").write_text("*\n")
    except (OSError, subprocess.CalledProcessError) as error:
        raise PeerError(f"no virtual environment can be made: {error}") from None
    run([str(python), "-m", "pip", "install", "--quiet", "--no-deps", "--only-binary=:all:", *PACKAGES])
    site = Path(run([str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]).strip())
    (site / "ours.pth").write_text("".join(f"{path}\n" for path in ours))
    run([str(python), "-c", "import trojanvision.defenses"])
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
    """TrojanZoo in a process of its own that stays, so that its imports are not timed and rounds can alternate.

    Args:
        job: a folder with ``settings.json``, ``trusted.safetensors`` and one folder for each model.

    Raises:
        PeerError: the environment cannot be made or the process does not start.
    """

    def __init__(self, job: Path) -> None:
        self.job = job
        python = environment()
        threads = str(torch.get_num_threads())
        self.log = (job / "peer.log").open("w+")
        self.process = subprocess.Popen(
            [str(python), str(HERE / "trojanzoo_peer.py"), str(job)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": threads},
        )
        self.versions = self._answer()

    def invert(self, model: str) -> dict[str, Any]:
        """Invert all classes of a model of the job; `seconds` and `steps` as the peer counted them."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"model": model}) + "\n")
        self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self.log.seek(0)
            raise PeerError(
                "TrojanZoo's process ended: " + (self.log.read().strip().splitlines() or ["no message"])[-1]
            )
        return json.loads(line)

    def close(self) -> None:
        """End the process."""
        if self.process.stdin is not None:
            self.process.stdin.close()
        self.process.wait()
        self.log.close()
