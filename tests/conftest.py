"""Pictures and files that several tests share."""

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

# Compiling the objective takes longer than all that the tests do with it.
os.environ["TORCHDYNAMO_DISABLE"] = "1"

import hvcodec
from hvcodec import engine, modelfile, signs

PICTURES = Path(__file__).parent / "pictures"


def psnr(a: Image.Image | np.ndarray, b: Image.Image | np.ndarray) -> float:
    """PSNR over R, G and B in dB."""
    difference = np.asarray(a).astype(float) - np.asarray(b)
    return 10 * np.log10(255**2 / np.square(difference).mean())


def gradient(width: int, height: int) -> np.ndarray:
    """A smooth colourful picture of any size, uint8 H x W x 3."""
    y, x = np.mgrid[:height, :width]
    planes = [x * 255 / max(width - 1, 1), y * 255 / max(height - 1, 1), (x + y) * 3 % 256]
    return np.stack(planes, -1).astype(np.uint8)


@pytest.fixture(scope="session")
def photo() -> Image.Image:
    """A photograph, 384x256 (a crop of Kodak 23)."""
    return Image.open(PICTURES / "parrots.png").convert("RGB")


@pytest.fixture(scope="session")
def stream(photo: Image.Image) -> bytes:
    """The photograph at default quality."""
    return hvcodec.encode(photo)


@pytest.fixture(scope="session")
def network() -> engine.Engine:
    """The default model."""
    return engine.load(modelfile.locate(None))


@pytest.fixture
def no_signs(monkeypatch):
    """Files have the symbols that each are best alone: syndromes say no signs."""
    for name in ("slices", "slices_of_refinement"):
        found = getattr(signs, name)
        monkeypatch.setattr(signs, name, lambda *a, f=found: dataclasses.replace(f(*a), parts=[]))
