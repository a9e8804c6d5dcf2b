"""From image files to uint8 tensors, with errors that name the file."""

from __future__ import annotations

import struct
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from bezoar.errors import DataError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
"""The formats that are opened; others of pillow's start foreign programs (EPS) or hold no photographs."""

SMALL = 64 * 64
"""Up to this many pixels an image is decoded faster than threads hand it over."""

_JPEG_END = b"\xff\xd9"
_BROKEN = (
    OSError,
    SyntaxError,
    ValueError,
    LookupError,
    TypeError,
    EOFError,
    struct.error,
    Image.DecompressionBombError,
)


def decode(source: Path | bytes, name: str) -> Image.Image:
    """An image file, or the bytes of one, upright (as its EXIF data says) and in RGB; transparency is dropped.

    Raises:
        DataError: it is broken or no image; the message calls it `name`.
    """
    with _errors_naming(name), _open(source) as image:
        return ImageOps.exif_transpose(image).convert("RGB")


def check(path: Path) -> None:
    """Find out whether a file is a whole image, with as little decoding as its format allows.

    Raises:
        DataError: it is broken or no image; the message names the file.
    """
    with _errors_naming(str(path)), _open(path) as image:
        # a PNG has checksums, and a JPEG with its end marker is not cut off; other formats tell only when decoded
        if image.format == "PNG":
            image.verify()
        elif image.format == "JPEG" and _ends_with(path, _JPEG_END):
            image.getexif()
        else:
            image.load()


def stack(count: int, height: int, width: int, read: Callable[[int], Image.Image]) -> UInt8[Tensor, "n 3 h w"]:
    """The RGB images ``read(0), ..., read(count - 1)``, each of that height and width, as one tensor.

    Larger images are decoded by as many threads as torch uses.
    """
    pixels = np.empty((count, height, width, 3), dtype=np.uint8)

    def fill(first: int, step: int) -> None:
        for number in range(first, count, step):
            pixels[number] = np.asarray(read(number))

    threads = 1 if height * width <= SMALL else max(1, min(torch.get_num_threads(), count))
    if threads == 1:
        fill(0, 1)
    else:
        with ThreadPoolExecutor(threads) as pool:
            for done in [pool.submit(fill, first, threads) for first in range(threads)]:
                done.result()
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()


def _open(source: Path | bytes) -> Image.Image:
    return Image.open(BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS)


def _ends_with(path: Path, ending: bytes) -> bool:
    with path.open("rb") as file:
        file.seek(-len(ending), 2)
        return file.read() == ending


@contextmanager
def _errors_naming(name: str) -> Generator[None]:
    """Turn whatever pillow raises about a file into one message that names it."""
    try:
        yield
    except UnidentifiedImageError:
        raise DataError(
            f"{name}: this is no image of a known format ({', '.join(FORMATS)}); convert or remove it"
        ) from None
    except _BROKEN as error:
        raise DataError(f"{name}: this image is broken ({error}); replace or remove it") from None
