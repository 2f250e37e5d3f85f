"""A file can be cut at a layer's end, and rates can be traded between layers."""

import math

import numpy as np
import pytest
from conftest import psnr

import hvcodec
from hvcodec import container, tuning
from hvcodec.encoder import Encoder
from hvcodec.engine import Engine
from hvcodec.ladder import NAMES


def test_every_cut_is_a_whole_file(photo, stream):
    points = hvcodec.info(stream)["cut_points"]
    assert points[-1] == len(stream)
    values = []
    for count, point in enumerate(points, 1):
        prefix = stream[:point]
        assert hvcodec.cut(stream, layers=count) == prefix
        picture = hvcodec.decode(prefix)
        assert (np.asarray(picture) == np.asarray(hvcodec.decode(stream, layers=count))).all()
        present = [layer["present"] for layer in hvcodec.info(prefix)["layers"]]
        assert present == [True] * count + [False] * (len(points) - count)
        values.append(psnr(photo, picture))
    assert all(b > a - 0.1 for a, b in zip(values, values[1:]))
    assert values[-1] > values[0] + 8


def test_offsets_and_lengths_add_up(stream):
    found = hvcodec.info(stream)
    for layer, point in zip(found["layers"], found["cut_points"]):
        assert layer["offset"] + layer["length"] == point
    assert [layer["name"] for layer in found["layers"]] == list(NAMES)


def test_cut_by_size(stream):
    points = hvcodec.info(stream)["cut_points"]
    assert hvcodec.cut(stream, max_bytes=points[2] + 1) == stream[: points[2]]
    with pytest.raises(hvcodec.UsageError, match=str(points[0])):
        hvcodec.cut(stream, max_bytes=points[0] - 1)


def test_a_cut_file_can_be_cut_again(stream):
    once = hvcodec.cut(stream, layers=5)
    assert hvcodec.cut(once, layers=3) == hvcodec.cut(stream, layers=3)
    with pytest.raises(hvcodec.UsageError, match="1 to 5"):
        hvcodec.cut(once, layers=6)
    with pytest.raises(hvcodec.UsageError, match="1 to 5"):
        hvcodec.decode(once, layers=6)


def lengths(data):
    return {layer["name"]: layer["length"] for layer in hvcodec.info(data)["layers"]}


@pytest.mark.parametrize("name", NAMES)
def test_a_cheaper_layer_takes_more_bytes(photo, stream, name):
    # r_l is non-increasing in its own beta_l (docs: the objective).
    cheap = lengths(hvcodec.encode(photo, rate_weights={name: 0.25}))[name]
    dear = lengths(hvcodec.encode(photo, rate_weights={name: 4}))[name]
    assert cheap > lengths(stream)[name] > dear


def test_a_layer_can_be_left_out(photo, stream):
    data = hvcodec.encode(photo, rate_weights={"z1": math.inf, "z2": math.inf})
    assert lengths(data)["z2"] == 2  # the check alone
    assert container.read(data).header.filters and lengths(data)["z1"] < 64  # and the filter
    assert len(data) < len(stream)
    assert psnr(photo, hvcodec.decode(data)) > 25


def test_a_file_without_a_coarse_layer_can_be_cut(photo):
    data = hvcodec.encode(photo, rate_weights={"z5": math.inf})
    whole, part = hvcodec.latents(data), hvcodec.latents(hvcodec.cut(data, layers=6))
    assert all((whole[name] == part[name]).all() for name in NAMES[:6])


def test_presets_move_rate_between_layers(photo):
    def coarse_share(preset):
        sizes = lengths(hvcodec.encode(photo, rate_weights=preset))
        return sum(sizes[n] for n in NAMES[:4]) / sum(sizes.values())

    assert coarse_share("preview-first") > coarse_share("balanced") > coarse_share("detail-first")


@pytest.mark.parametrize(
    "weights",
    [
        "no-such",
        {"z9": 1},
        {"r9": 1},
        {"r1": math.inf},
        {"r1": 1, "z1": math.inf},
        {"z1": 0},
        {"z1": 9},
        {"z1": -1},
        {"z1": math.nan},
    ],
)
def test_wrong_rate_weights(photo, weights):
    with pytest.raises(hvcodec.UsageError):
        hvcodec.encode(photo, rate_weights=weights)


@pytest.mark.parametrize("size", [3000, 9000, 20000])
def test_target_size_is_met_from_below(photo, size):
    data = hvcodec.encode(photo, target_size=size)
    assert 0.98 * size < len(data) <= size


def test_targets_take_few_passes(photo, monkeypatch):
    passes = []
    encode = Engine.encode
    monkeypatch.setattr(Engine, "encode", lambda *a, **k: passes.append(1) or encode(*a, **k))
    for target in ({"target_size": 1500}, {"target_size": 60000}, {"target_psnr": 40.0}):
        passes.clear()
        hvcodec.encode(photo, **target)
        assert len(passes) <= 6


def test_target_bpp_is_target_size(photo):
    assert hvcodec.encode(photo, target_bpp=0.5) == hvcodec.encode(photo, target_size=6144)


def test_target_psnr(photo):
    for target in (28.0, 36.0):
        value = psnr(photo, hvcodec.decode(hvcodec.encode(photo, target_psnr=target)))
        assert target - 0.1 < value <= target


def test_what_is_better_than_its_target_at_quality_0(photo):
    white = np.full((64, 64, 3), 255, np.uint8)
    for picture, target in ((white, 20), (photo, 10)):
        coarsest = hvcodec.encode(picture, quality=0)
        assert psnr(picture, hvcodec.decode(coarsest)) > target
        assert hvcodec.encode(picture, target_psnr=target) == coarsest


def test_no_setting_is_encoded_twice(photo, monkeypatch):
    settings = []
    encode = Encoder.encode

    def noted(self, lam, thrift=1.0, decoded=None):
        settings.append((lam, thrift))
        return encode(self, lam, thrift, decoded)

    monkeypatch.setattr(Encoder, "encode", noted)
    monkeypatch.setattr(Encoder, "encode_with_effort", lambda self, *_, **__: encode(self, 4.0))
    for target in ({"target_size": 4000}, {"target_psnr": 33.0}):
        settings.clear()
        hvcodec.encode(photo, **target, effort=1)
        assert len(set(settings)) == len(settings) > 3


@pytest.mark.parametrize("kind,target,beyond", [("target_size", 4000, 4200), ("target_psnr", 33, 33.5)])
def test_effort_that_overshoots_leaves_the_plain_file(photo, monkeypatch, kind, target, beyond):
    plain, too_fine = (hvcodec.encode(photo, **{kind: value}) for value in (target, beyond))
    monkeypatch.setattr(Encoder, "encode_with_effort", lambda self, *_, **__: too_fine)
    assert hvcodec.encode(photo, **{kind: target}, effort=1) == plain


@pytest.mark.parametrize("lossless", [False, True])
def test_the_finest_steps_leave_room_for_refinement(photo, lossless):
    data = hvcodec.encode(photo, lam=1e4, rate_weights="progressive", lossless=lossless)
    difference = np.asarray(hvcodec.decode(data)).astype(int) - np.asarray(photo)
    assert np.abs(difference).max() <= (0 if lossless else 3)


def test_targets_out_of_reach_and_contradictions(photo):
    with pytest.raises(hvcodec.UsageError, match="smallest"):
        hvcodec.encode(photo, target_size=50)
    for wrong in (
        {"quality": 101},
        {"quality": -1},
        {"quality": math.nan},
        {"lam": 0},
        {"lam": math.nan},
        {"target_size": 0},
        {"target_bpp": math.nan},
        {"target_psnr": math.nan},
        {"quality": 50, "lam": 1},
        {"target_size": 1000, "target_psnr": 30},
    ):
        with pytest.raises(hvcodec.UsageError):
            hvcodec.encode(photo, **wrong)


def test_levels_of_refinement_follow_the_ladder(photo):
    data = hvcodec.encode(photo, rate_weights="progressive")
    found = hvcodec.info(data)
    assert [layer["name"] for layer in found["layers"]] == [*NAMES, *(f"r{n}" for n in range(8, 0, -1))]
    assert all(layer["step"] is None for layer in found["layers"][len(NAMES) :])
    values = []
    for count, point in enumerate(found["cut_points"], 1):
        picture = hvcodec.decode(data[:point])
        assert (np.asarray(picture) == np.asarray(hvcodec.decode(data, layers=count))).all()
        values.append(psnr(photo, picture))
    assert all(b > a for a, b in zip(values[6:], values[7:]))
    # Half the step is 6 dB less error at high rates.
    assert values[14] > values[6] + 10


@pytest.mark.parametrize("quality", [45, 70])
def test_no_level_sends_anything_twice(photo, quality, monkeypatch, no_signs):
    """Every level against a file without refinement that is as good: apart from signs that nothing is
    sent for, which only the last level has, and errors that are worth more than their squares, which
    files with levels do without."""
    monkeypatch.setattr(tuning, "LATER", (1,) * 7)
    refined = hvcodec.encode(photo, quality, rate_weights={"r4": 1.0})
    for point in hvcodec.info(refined)["cut_points"][len(NAMES) - 1 :: 2]:
        as_good = hvcodec.encode(photo, target_psnr=psnr(photo, hvcodec.decode(refined[:point])))
        assert point < 1.08 * len(as_good) + 100  # bytes of headers


def test_refinement_layers_that_are_named_are_there(photo):
    sizes = lengths(hvcodec.encode(photo, rate_weights={"r3": 2.0}))
    assert list(sizes) == [*NAMES, "r4", "r3", "r2", "r1"]


@pytest.mark.parametrize("name", ["r8", "r5", "r4", "r1"])
def test_a_cheaper_refinement_takes_more_bytes(photo, name):
    weights = {"r8": 1.0}
    sizes = [lengths(hvcodec.encode(photo, rate_weights=weights | {name: b})) for b in (0.125, 8)]
    assert sizes[0][name] > sizes[1][name]


def test_a_file_with_an_impossible_number_of_layers(photo, stream):
    from hvcodec import container

    file = container.read(stream)
    for extra in ([2], [2, 3], [2] * 12):
        header = file.header
        header.steps = [*header.steps[: len(NAMES)], *extra]
        segments = [file.segment(k, 0) for k in range(len(NAMES))]
        data = container.write(header, segments + [b""] * len(extra))
        with pytest.raises(hvcodec.FormatError, match="layers"):
            hvcodec.decode(data)


def test_a_file_whose_refined_steps_cannot_be(photo):
    from hvcodec import container

    file = container.read(hvcodec.encode(photo, rate_weights={"r2": 1.0}))
    file.header.steps[3] = 15
    segments = [file.segment(k, 0) for k in range(len(NAMES) + 2)]
    with pytest.raises(hvcodec.FormatError, match="layers"):
        hvcodec.decode(container.write(file.header, segments))


def test_any_words_decode_or_are_refused(photo):
    """Segments with right checks and wrong contents: a picture or one clear error, nothing else."""
    from hvcodec import container

    rng = np.random.default_rng(0)
    small = photo.crop((0, 0, 64, 64))
    refused = 0
    for number in range(24):
        weights = (None, "progressive")[number % 2]
        file = container.read(hvcodec.encode(small, 60, rate_weights=weights))
        first = rng.integers(0, file.layers)
        segments = [
            file.segment(layer, 0) if layer < first else rng.bytes(4 * rng.integers(1, 40))
            for layer in range(file.layers)
        ]
        try:
            assert hvcodec.decode(container.write(file.header, segments)).size == (64, 64)
        except hvcodec.FormatError:
            refused += 1
    assert refused > 0
