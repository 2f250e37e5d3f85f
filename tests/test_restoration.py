"""The filter of the decoded picture: that it helps, that it comes back, and that it is exact."""

from unittest import mock

import numpy as np
import pytest
from conftest import gradient, psnr
from make_golden import FOLDER
from PIL import Image

import hvcodec
from hvcodec import container, encoder, engine, modelfile, restoration
from hvcodec.decoder import Decoder
from hvcodec.restoration import LIMITS, MOST, UNITS, USED, Restoration, Weights, fit, split


def some(seed):
    """A filter of random weights."""
    rng = np.random.default_rng(seed)
    components = []
    for used in USED:
        weights = rng.integers(-20, 21, len(used))
        there = rng.random() < 0.8
        components.append(
            Weights(int(rng.integers(24)), int(rng.integers(4)), weights) if there else None
        )
    return Restoration(components)


def same(a, b):
    return all(
        (x is None and y is None) or (x[:2] == y[:2] and (x.weights == y.weights).all())
        for x, y in zip(a.components, b.components)
    )


def shown_of(picture):
    return np.asarray(picture).astype(np.int16) * 16


@pytest.mark.parametrize("seed", range(20))
def test_it_comes_back_from_the_end_of_a_segment(seed):
    filter_ = some(seed)
    before = b"abcd" * (seed % 3)
    words, found = split(before + filter_.pack())
    assert words == before and same(found, filter_)


def test_the_largest_weights_come_back():
    weights = np.zeros(len(USED[0]), np.int64)
    weights[3] = -MOST
    filter_ = Restoration([Weights(23, 0, weights), None, None])
    assert same(split(filter_.pack())[1], filter_)
    weights[4] = 1
    with pytest.raises(hvcodec.FormatError, match="restoration"):
        split(filter_.pack())


@pytest.mark.parametrize("words", [b"", b"\0\0\0\0", b"\0\0\0\2", b"\xff" * 39 + b"\x0a", b"\0\0\1\1"])
def test_what_is_no_filter_is_refused(words):
    with pytest.raises(hvcodec.FormatError, match="restoration"):
        split(words)


def test_random_words_are_filters_or_refused(photo):
    rng = np.random.default_rng(1)
    shown = shown_of(photo.crop((0, 0, 9, 7)))
    kinds = set()
    for _ in range(300):
        words = rng.bytes(4 * rng.integers(1, 40) - 1)
        words += bytes([len(words) // 4 + 1])
        try:
            _, found = split(words)
            found.apply(shown)
            kinds.add(True)
        except hvcodec.FormatError:
            kinds.add(False)
    assert False in kinds


def largest(seed):
    """Weights of all that is allowed, signs in turn, which partial sums of float32 would not hold."""
    rng = np.random.default_rng(seed)
    components = []
    for used in USED:
        weights = rng.multinomial(MOST, rng.dirichlet(np.full(len(used), 0.2)))
        components.append(Weights(23, 3, weights * rng.choice((-1, 1), len(used))))
    return Restoration(components)


@pytest.mark.parametrize(
    "seed,kind", [*((s, some) for s in range(4)), *((s, largest) for s in range(4))]
)
def test_pixels_are_those_of_plain_integers(photo, seed, kind):
    """Against sums over pixels one by one, at corners, borders and inside."""
    filter_ = kind(seed)
    shown = shown_of(photo.crop((50, 40, 83, 61))) + np.random.default_rng(seed).integers(
        -8, 9, (21, 33, 3)
    )
    if kind is largest:
        shown = np.random.default_rng(seed).choice((0, 1, 4079, 4080), shown.shape)
    shown = np.clip(shown, 0, 4080).astype(np.int16)
    found = filter_.apply(shown)
    planes = shown.astype(int) @ restoration.COMPONENTS.astype(int).T
    height, width = shown.shape[:2]

    def at(y, x, c):
        return int(planes[min(max(y, 0), height - 1), min(max(x, 0), width - 1), c])

    for y, x in [(0, 0), (0, 32), (20, 0), (20, 32), (1, 2), (10, 15), (18, 30)]:
        corrected = [0, 0, 0]
        for own, component in enumerate(filter_.components):
            if component is None:
                continue
            for number, weight in zip(USED[own], component.weights.tolist()):
                c, (i, j), clipped = restoration.INPUTS[number]
                for sign in (1, -1):
                    difference = at(y + sign * i, x + sign * j, c) - at(y, x, c)
                    if clipped:
                        limit = LIMITS[component.limit]
                        difference = min(max(difference, -limit), limit)
                    corrected[own] += weight * difference * (512 // UNITS[component.unit])
        a, b, c = corrected
        for k, sixfold in enumerate((2 * a + 3 * b + c, 2 * a - 3 * b + c, 2 * a - 2 * c)):
            exact = (int(shown[y, x, k]) * 6 * 512 + sixfold + 6 * 512 * 8) // (6 * 512 * 16)
            assert found[y, x, k] == min(max(exact, 0), 255)


def test_it_undoes_a_blur(photo):
    original = np.asarray(photo)
    blurred = original.astype(float)
    for axis in (0, 1):
        blurred = (np.roll(blurred, 1, axis) + 6 * blurred + np.roll(blurred, -1, axis)) / 8
    shown = np.rint(blurred * 16).astype(np.int16)
    filter_ = fit([(shown, original)], 1.0)
    assert psnr(original, filter_.apply(shown)) > psnr(original, np.rint(blurred)) + 6


def test_windows_count_as_one_picture(photo):
    original = np.asarray(photo)
    shown = shown_of(photo) + np.random.default_rng(0).integers(-60, 61, original.shape).astype(
        np.int16
    )
    shown = np.clip(shown, 0, 4080)
    halves = [(shown[:128], original[:128]), (shown[128:], original[128:])]
    whole, parts = (fit(windows, 1.0) for windows in ([(shown, original)], halves))
    quality = [psnr(original, found.apply(shown)) for found in (whole, parts)]
    assert abs(quality[0] - quality[1]) < 0.01


def test_there_is_none_where_there_is_nothing_to_gain(photo):
    original = np.asarray(photo)
    assert fit([(shown_of(photo), original)], 1.0) is None
    assert fit([], 1.0) is None
    noise = np.random.default_rng(0).integers(-8, 8, original.shape).astype(np.int16)
    assert fit([(np.clip(shown_of(photo) + noise, 0, 4080), original)], 1e-9) is None


@pytest.fixture(scope="module")
def restored(photo):
    data = hvcodec.encode(photo, 70)
    assert container.read(data).header.filters
    return data


def test_a_file_is_better_for_it(photo, restored):
    network = engine.load(modelfile.locate(None))
    decoder = Decoder(container.read(restored), network)
    with_it = psnr(photo, decoder.picture())
    assert with_it == psnr(photo, hvcodec.decode(restored))
    with mock.patch.object(Restoration, "apply", lambda _, shown: np.clip((shown + 8) // 16, 0, 255)):
        without = psnr(photo, decoder.picture())
    assert with_it > without + 0.03


def test_cuts_do_without(photo, restored):
    with mock.patch.object(encoder, "fit", lambda *_: None):
        plain = hvcodec.encode(photo, 70)
    assert not container.read(plain).header.filters
    assert hvcodec.info(plain)["cut_points"][:-1] == hvcodec.info(restored)["cut_points"][:-1]
    for layers in (1, 4, 6):
        pictures = [np.asarray(hvcodec.decode(data, layers=layers)) for data in (plain, restored)]
        assert (pictures[0] == pictures[1]).all()
    cut = hvcodec.cut(restored, layers=6)
    assert (np.asarray(hvcodec.decode(cut)) == np.asarray(hvcodec.decode(plain, layers=6))).all()


@pytest.fixture(scope="module")
def refined(photo):
    """Without chroma at the full resolution, which a filter mends: so every level ends in one."""
    luma, *chroma = photo.convert("YCbCr").split()
    half = [c.resize((192, 128)).resize((384, 256)) for c in chroma]
    rgb = Image.merge("YCbCr", [luma, *half]).convert("RGB")
    return rgb, hvcodec.encode(rgb, 75, "progressive")


def test_every_level_ends_in_a_filter_that_the_next_cut_uses_too(refined):
    original, data = refined
    header = container.read(data).header
    assert header.filters == container.Filters.LEVELS and header.filtered == [8, 10, 12, 14]
    network = engine.load(modelfile.locate(None))
    for layers in range(7, 16):
        decoder = Decoder(container.read(hvcodec.cut(data, layers=layers)), network)
        with_it = decoder.picture()
        assert (np.asarray(hvcodec.decode(data, layers=layers)) == with_it).all()
        assert (decoder.restoration is None) == (layers < 9)
        decoder.restoration = None
        if layers >= 11:
            assert psnr(original, with_it) > psnr(original, decoder.picture()) + 0.01


@pytest.mark.parametrize(
    "region", [(0, 0, 5, 4), (100, 60, 33, 50), (380, 250, 4, 6), (0, 100, 384, 1)]
)
def test_regions_are_parts_of_the_picture(restored, region):
    x, y, width, height = region
    whole = np.asarray(hvcodec.decode(restored))
    part = np.asarray(hvcodec.decode(restored, region=region))
    assert (part == whole[y : y + height, x : x + width]).all()


def test_tiles_are_fitted_together_and_show_no_border(photo):
    with (
        mock.patch.object(container, "tile_size", lambda width, height: 128),
        mock.patch.object(encoder, "WINDOW", 32),
    ):
        data = hvcodec.encode(photo, 75)
    assert container.read(data).header.filters and container.read(data).header.tile_count == 6
    whole = np.asarray(hvcodec.decode(data))
    part = np.asarray(hvcodec.decode(data, region=(120, 121, 20, 30)))
    assert (part == whole[121:151, 120:140]).all()


@pytest.mark.parametrize("effort", [0, 1])
def test_it_is_there_with_and_without_effort(photo, effort):
    data = hvcodec.encode(photo.crop((0, 0, 192, 128)), 80, effort=effort)
    assert container.read(data).header.filters


@pytest.mark.parametrize("size", [(1, 1), (1, 70), (3, 2)])
def test_any_size(size):
    rgb = gradient(*size)
    filter_ = some(3)
    assert filter_.apply(shown_of(rgb)).shape == rgb.shape


def test_not_with_a_lossless_layer(photo):
    data = bytearray((FOLDER / "lossless.hvc").read_bytes())
    header = container.read(bytes(data)).header
    header.filters = container.Filters.LAST
    changed = header.pack()
    with pytest.raises(hvcodec.UnsupportedError, match="does not know"):
        hvcodec.decode(changed + bytes(data[len(changed) :]))


def test_a_damaged_filter_is_one_error(restored):
    file = container.read(restored)
    segments = [file.segment(k, 0) for k in range(7)]
    for end in (b"\0\0\0\0", b"\xff" * 7 + b"\2"):
        data = container.write(file.header, [*segments[:-1], end])
        with pytest.raises(hvcodec.FormatError, match="restoration"):
            hvcodec.decode(data)
