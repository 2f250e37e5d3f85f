"""The format page says everything: another decoder finds the same pixels."""

import math

import numpy as np
import pytest
import second_decoder

import hvcodec
from hvcodec import container, modelfile


@pytest.fixture(scope="module")
def network() -> second_decoder.Network:
    """Of the default model."""
    return second_decoder.Network(modelfile.locate().read_bytes())


@pytest.mark.parametrize(
    "quality,weights,layers",
    [
        (20, None, 7),
        (85, {"z1": math.inf, "z4": 0.3}, 7),
        (60, None, 4),
        (70, "progressive", 15),
        (70, "progressive", 10),
    ],
)
def test_another_decoder_finds_the_same_pixels(photo, network, quality, weights, layers):
    data = hvcodec.encode(photo.crop((30, 40, 180, 130)), quality, weights)
    data = hvcodec.cut(data, layers=layers)
    other = second_decoder.decode(data, network)
    assert (other == np.asarray(hvcodec.decode(data))).all()


def test_another_decoder_finds_the_same_pixels_across_tiles(photo, network, monkeypatch):
    monkeypatch.setattr(container, "tile_size", lambda width, height: 64)
    data = hvcodec.encode(photo.crop((30, 40, 180, 180)), 40)
    assert container.read(data).header.tile_count == 9
    other = second_decoder.decode(data, network)
    assert (other == np.asarray(hvcodec.decode(data))).all()


@pytest.mark.parametrize(
    "mode,weights,side",
    [("RGB", None, 0), ("L", None, 0), ("RGB", "progressive", 0), ("RGB", None, 64)],
)
def test_another_decoder_finds_the_exact_pixels(photo, network, monkeypatch, mode, weights, side):
    monkeypatch.setattr(container, "tile_size", lambda width, height: side)
    picture = photo.crop((60, 40, 131, 99)).convert(mode)
    data = hvcodec.encode(picture, rate_weights=weights, lossless=True)
    other = second_decoder.decode(data, network)
    assert (other == np.asarray(picture)).all()
