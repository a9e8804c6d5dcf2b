"""The other side of the smoothing benchmark: PyTorchRandomizedSmoothing of adversarial-robustness-toolbox, as it is.

Runs in an environment of its own (see `peer.py`) and answers on stdout, one JSON line for each JSON line on stdin.
"""

# pyright: reportMissingImports=false
from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import art
import numpy as np
import torch
from art.estimators.certification.randomized_smoothing import PyTorchRandomizedSmoothing
from peaks import grown
from safetensors.torch import load_file
from torch import nn

from bezoar.models.files import load_model
from bezoar.models.foreign import parse_architecture


def main(job: Path) -> None:
    """Serve certificates of the models in a job folder until stdin closes."""
    answers, sys.stdout = sys.stdout, sys.stderr  # whatever is printed must not be taken for an answer
    settings: dict[str, Any] = json.loads((job / "settings.json").read_text())
    torch.set_num_threads(settings["threads"])
    images = (load_file(job / "images.safetensors")["images"].float() / 255).numpy()
    answers.write(json.dumps({"art": art.__version__, "torch": torch.__version__}) + "\n")
    answers.flush()
    for line in sys.stdin:
        answers.write(json.dumps(certify(job, images, settings, json.loads(line))) + "\n")
        answers.flush()


def certify(job: Path, images: np.ndarray, settings: dict[str, Any], request: dict[str, Any]) -> dict[str, Any]:
    """Seconds, radii and answers, and by how many bytes the peak of the process's memory has grown."""
    named = settings["architectures"][request["model"]]
    loaded = load_model(job / request["model"], architecture=None if named is None else parse_architecture(named))
    smoothing = PyTorchRandomizedSmoothing(
        model=loaded.model,
        loss=nn.CrossEntropyLoss(),
        input_shape=loaded.shape,
        nb_classes=len(loaded.model.classes),
        sample_size=settings["selection"],
        scale=settings["sigma"],
        alpha=settings["alpha"],
    )
    np.random.seed(0)  # noqa: NPY002 - the library draws from the global generator
    found: list[np.ndarray] = []

    def work() -> None:
        few = images[: request["images"]]
        found.extend(smoothing.certify(few, n=request["draws"], batch_size=request["batch"]))

    started = time.perf_counter()
    size = grown(work)
    seconds = time.perf_counter() - started
    predicted, radius = found
    return {"seconds": seconds, "predicted": predicted.tolist(), "radius": radius.tolist(), "bytes": size}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
