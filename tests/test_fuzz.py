"""Damaged files are decoded or refused, never anything else. `fuzz/fuzz.py` tries many more."""

import random
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from fuzz import mutator, target

import hvcodec
from hvcodec import container

CORPUS = Path(__file__).parent / "fuzz" / "corpus"
INTACT = {path.stem: path.read_bytes() for path in sorted(CORPUS.glob("*.hvc"))}
FOUND = sorted((CORPUS / "found").glob("*"))
THREE = ("alpha", "one-level", "tiles-cut")


@pytest.mark.parametrize("name", INTACT)
def test_the_corpus_is_intact(name):
    """If not: has the shipped model changed? `python tests/fuzz/make_corpus.py`"""
    assert target.check(INTACT[name]) == "decoded"
    assert mutator.repair(INTACT[name]) == INTACT[name]


@pytest.mark.parametrize("path", FOUND, ids=lambda path: path.name)
def test_what_failed_once_does_not_fail_again(path):
    target.check(path.read_bytes())


@pytest.mark.parametrize("count", [150, pytest.param(2000, marks=pytest.mark.slow)])
def test_damaged_files_are_decoded_or_refused(count):
    seeds = list(INTACT.values())
    depths = Counter()
    for number in range(count):
        start = time.process_time()
        depths[target.check(mutator.damaged_file(f"test:{number}", seeds))] += 1
        assert time.process_time() - start < 5, f"file {number} takes too long"
    # Damage reaches everything that there is.
    assert depths.keys() >= set(target.DEPTHS) - {"too large to try"}


@pytest.mark.parametrize("name", THREE)
def test_every_prefix_is_a_cut_or_refused(name):
    data = INTACT[name]
    points = hvcodec.info(data)["cut_points"]
    for size in range(len(data) + 1):
        picture = target.attempt(hvcodec.decode, data[:size])
        if size not in points:
            assert isinstance(picture, hvcodec.HvcError), size
            continue
        layers = points.index(size) + 1
        assert sum(layer["present"] for layer in hvcodec.info(data[:size])["layers"]) == layers
        assert np.array_equal(picture, hvcodec.decode(data, layers=layers))


@pytest.mark.parametrize("count", [300, pytest.param(5000, marks=pytest.mark.slow)])
def test_no_flipped_bit_goes_unnoticed(count):
    rng = random.Random(1)
    for _ in range(count):
        data = INTACT[rng.choice(THREE)]
        bit = rng.randrange(8 * len(data))
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        noticed = target.attempt(lambda damaged=damaged: container.read(damaged).verify())
        assert isinstance(noticed, hvcodec.HvcError), bit
