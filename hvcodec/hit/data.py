"""Small pictures with labels: binarised MNIST and CIFAR-10.

Files are those that `../shared/data/README.md` describes. CIFAR-10 comes as a JPEG copy ("cifar10") of
all its pictures, whose numbers cannot be compared with published ones, and as 4000 true pictures
("cifar10-lossless").
"""

import io
import zipfile
import zlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..errors import HvcError, UsageError
from ..exact import Array

HELD_OUT = 12  # one training picture in so many is for validation


@dataclass(frozen=True)
class Split:
    """Some pictures.

    Attributes:
        x: uint8, N x planes x side x side: 0 .. levels.
        labels: int64, N.
        levels: what 1.0 is in x: 1 for binary pictures, else 255.
    """

    x: Array
    labels: Array
    levels: int

    def batch(self, index: Array | slice) -> Tensor:
        """Pictures in [0, 1], float32."""
        return torch.from_numpy(self.x[index]).float() / self.levels

    def part(self, index: Array | slice) -> "Split":
        return Split(self.x[index], self.labels[index], self.levels)


@dataclass(frozen=True)
class Data:
    """Pictures to train on, to choose models by, and to report."""

    train: Split
    val: Split
    test: Split


def _jpeg(file: dict[str, Array], part: str) -> Array:
    header, ends = file[f"{part}_header"].tobytes(), file[f"{part}_len"].astype(int).cumsum()
    streams = np.split(file[f"{part}_data"], ends[:-1])
    pictures = [np.asarray(Image.open(io.BytesIO(header + s.tobytes()))) for s in streams]
    return np.stack(pictures).transpose(0, 3, 1, 2)


def _mnist(folder: Path) -> tuple[Split, Split]:
    file = np.load(folder / "mnist.npz")

    def part(name: str) -> Split:
        binary = (file[f"x_{name}"][:, None] > 127).astype(np.uint8)
        return Split(binary, file[f"y_{name}"].astype(np.int64), 1)

    return part("train"), part("test")


def _cifar(folder: Path) -> tuple[Split, Split]:
    file = dict(np.load(folder / "cifar10_jpeg_q75.npz"))
    train, test = (
        Split(_jpeg(file, p), file[f"y_{p}"].astype(np.int64), 255) for p in ("train", "test")
    )
    return train, test


def _cifar_lossless(folder: Path) -> tuple[Split, Split]:
    file = np.load(folder / "cifar10_lossless4k.npz")
    whole = Split(
        np.ascontiguousarray(file["x"].transpose(0, 3, 1, 2)), file["y"].astype(np.int64), 255
    )
    return whole.part(slice(1000, None)), whole.part(slice(1000))


SETS = {"mnist": _mnist, "cifar10": _cifar, "cifar10-lossless": _cifar_lossless}


@lru_cache(maxsize=1)
def load(name: str, folder: Path) -> Data:
    """One of `SETS`; the last twelfth of its training pictures is held out for validation.

    Raises:
        UsageError: no such set.
        HvcError: its file cannot be read.
    """
    if name not in SETS:
        raise UsageError(f"sets of pictures are {', '.join(SETS)}")
    try:
        train, test = SETS[name](folder)
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise HvcError(f"{name} cannot be read from {folder}: {error}") from None
    kept = len(train.x) - len(train.x) // HELD_OUT
    return Data(train.part(slice(kept)), train.part(slice(kept, None)), test)
