"""The same bits everywhere: exact sums, own functions, and decoding under all kinds of settings."""

import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest

import hvcodec
from hvcodec import container, engine, exact, modelfile, network, parallel


@pytest.fixture(scope="module")
def loaded():
    return engine.load(modelfile.locate()).network


def test_functions_are_what_they_are_called():
    x = np.logspace(-30, 30, 20_001, dtype=np.float32)
    assert np.abs(exact.log2(x) - np.log2(x.astype(float))).max() < 3e-5
    y = np.linspace(-100, 100, 20_001, dtype=np.float32)
    assert np.abs(exact.exp2(y) / np.exp2(y.astype(float)) - 1).max() < 5e-7
    assert np.isfinite(exact.exp2(np.array([-1e9, 1e9, -np.inf], np.float32))).all()
    assert np.allclose(exact.sigmoid(y / 4), 1 / (1 + np.exp(-y.astype(float) / 4)), atol=1e-6)
    # Continuous over the borders of octaves.
    edge = np.array([1 - 2**-24, 1, 1 + 2**-23], np.float32)
    assert np.abs(np.diff(exact.log2(edge))).max() < 1e-6
    assert exact.exp(exact.log(x[8000:12000])).dtype == np.float32


def test_inputs_are_rounded_and_clamped():
    x = np.array([0.4, 0.5, 1.5, -0.8, 1e9, -1e9], np.float32)
    assert exact.whole(x, 511).tolist() == [0, 0, 2, -1, 511, -511]
    assert exact.whole(x, 511, least=0).tolist() == [0, 0, 2, 0, 511, 0]


@pytest.mark.parametrize("limit", exact.LIMITS)
def test_the_certificate_is_kept_and_tight(limit):
    rng = np.random.default_rng(limit)
    weights = rng.normal(0, 10.0 ** rng.uniform(-4, 1, (64, 1)), (64, 192)).astype(np.float32)
    weights[5] = 0
    biases = rng.normal(0, 3, 64).astype(np.float32)
    unit = 2.0**-5
    units = exact.weight_units(weights, biases, unit, limit)
    w, b = exact.rounded(weights, biases, unit, limit)
    sums = np.abs(w / units[:, None]).sum(1) * limit + np.abs(b / units / unit)
    assert (sums < 2**24).all()
    assert (w / units[:, None] == np.rint(w / units[:, None])).all()
    finer = units / 2
    over = np.abs(np.rint(weights / finer[:, None])).sum(1) * limit + np.abs(
        np.rint(biases / finer / unit)
    )
    assert ((over >= 2**24) | (finer < 2.0**-exact.FINEST)).all()
    # In any order, and as it would be without rounding.
    x = (rng.integers(-limit, limit + 1, (50, 192)) * unit).astype(np.float32)
    order = rng.permutation(192)
    found = x @ w.T + b
    assert (found == x[:, order] @ w[:, order].T + b).all()
    assert (found == x.astype(float) @ w.T.astype(float) + b).all()


def test_weights_that_cannot_be_exact_are_refused():
    with pytest.raises(ValueError, match="too large"):
        exact.weight_units(np.full((1, 9), 1e9), None, 1.0, 4095)


def test_every_product_is_exact_on_a_picture(photo, monkeypatch):
    """In float32, in float64, and with its channels in another order."""
    rng = np.random.default_rng(0)
    seen = set()

    def checked(x, matrix, out=None):
        order = rng.permutation(x.shape[1])
        found = x @ matrix
        assert (found == x[:, order] @ matrix[order]).all()
        assert (found == x.astype(float) @ matrix.astype(float)).all()
        seen.add(id(matrix))
        return found

    data = hvcodec.encode(photo.crop((0, 0, 128, 128)), 75)
    monkeypatch.setattr(network, "dot", checked)
    hvcodec.decode(data)
    assert len(seen) > 90


@pytest.mark.parametrize("width,channels", [(1, 3), (7, 2000), (13, 32), (24, 128)])
def test_a_depthwise_product_is_one_of_shifted_pictures(width, channels):
    rng = np.random.default_rng(0)
    picture = rng.integers(-500, 501, (7, width + 2, channels)).astype(np.float32)
    taps = rng.integers(-127, 128, (3, 3, channels)).astype(np.float32)
    run = network.run_of(width, channels)
    found = np.empty((5, width * channels), np.float32)
    network.depthwise(picture.reshape(7, -1), np.tile(taps, run), channels, found)
    wanted = sum(picture[i : 5 + i, j : j + width] * taps[i, j] for i in range(3) for j in range(3))
    assert (found == wanted.reshape(5, -1)).all()


@pytest.mark.parametrize("strip,workers", [(1, 2), (1 << 14, 3), (1 << 30, 1)])
def test_strips_and_threads_make_no_difference(photo, monkeypatch, strip, workers):
    data = hvcodec.encode(photo, 60)
    whole = np.asarray(hvcodec.decode(data))
    monkeypatch.setattr(parallel, "STRIP", strip)
    monkeypatch.setattr(parallel, "WORKERS", workers)
    assert (np.asarray(hvcodec.decode(data)) == whole).all()


DECODE = """
import hashlib, sys, numpy, hvcodec
for name in sys.argv[1:]:
    pixels = numpy.asarray(hvcodec.decode(open(name, "rb").read()))
    print(hashlib.sha256(pixels.tobytes()).hexdigest())
assert "torch" not in sys.modules
"""


@pytest.mark.parametrize(
    "settings",
    [
        {"OPENBLAS_NUM_THREADS": "4"},
        {"OPENBLAS_CORETYPE": "Prescott", "NPY_DISABLE_CPU_FEATURES": "AVX2 FMA3 AVX512F AVX512_SKX"},
        {"OPENBLAS_CORETYPE": "Haswell", "OPENBLAS_NUM_THREADS": "1"},
    ],
)
def test_decoding_is_the_same_under_other_settings(tmp_path, photo, settings):
    part = photo.crop((0, 0, 200, 136))
    files = [hvcodec.encode(part, 70, weights) for weights in ("progressive", "balanced")]
    assert container.read(files[1]).header.bits_back
    command = [sys.executable, "-W", "ignore", "-c", DECODE]
    for number, data in enumerate(files):
        (tmp_path / f"{number}.hvc").write_bytes(data)
        command.append(str(tmp_path / f"{number}.hvc"))
    here = [hashlib.sha256(np.asarray(hvcodec.decode(data)).tobytes()).hexdigest() for data in files]
    there = subprocess.run(
        command, env=os.environ | settings, check=True, capture_output=True, text=True
    )
    assert there.stdout.split() == here
