"""Every data source of the registry keeps the promises of its role."""

import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from bezoar.component import Component, build
from bezoar.data.cifar10 import CLASSES
from bezoar.roles import DataSource
from bezoar.seed import Seed
from conformance import cases, hold, ready

FOLDER = build(DataSource, {"kind": "folder", "path": "photographs"})


@pytest.fixture(scope="module", autouse=True)
def _files(tmp_path_factory: pytest.TempPathFactory):
    """CIFAR-10's layout and a folder of class folders, 48 and 12 little images each, where `BEZOAR_DATA` points."""
    root = tmp_path_factory.mktemp("data")
    for split in ("train", "test"):
        rows = [{"img": {"bytes": _png(split, row), "path": None}, "label": row % 10} for row in range(48)]
        pq.write_table(pa.Table.from_pylist(rows), root / f"{split}-00000-of-00001.parquet")
    for row in range(12):
        folder = root / "photographs" / CLASSES[row % 3]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{row}.png").write_bytes(_png("folder", row))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BEZOAR_DATA", str(root))
        yield


def _png(name: str, row: int) -> bytes:
    pixels = torch.randint(256, (32, 32, 3), dtype=torch.uint8, generator=(Seed(0) / name / row).generator())
    file = io.BytesIO()
    Image.fromarray(pixels.numpy()).save(file, "PNG")
    return file.getvalue()


@cases([*ready("datasets", leave_out=["folder"]), FOLDER])
def test_data_source(component: Component, claim):
    hold(component, claim)
