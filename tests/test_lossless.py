"""The lossless layer: exact pixels at the end of a file whose beginning is a lossy picture."""

import numpy as np
import pytest
from conftest import gradient
from PIL import Image

import hvcodec
from hvcodec import container, engine, lossless, modelfile
from hvcodec.correction import Correction
from hvcodec.encoder import push
from hvcodec.lossless_tables import FRACTIONS, LOWEST, SCALES, SCALES_PER_OCTAVE, SHAPES, UNIT


@pytest.fixture(scope="module")
def small(photo):
    """120x72 pixels."""
    return photo.crop((100, 60, 220, 132))


@pytest.fixture(scope="module")
def whole(small):
    """Its lossless file."""
    return hvcodec.encode(small, lossless=True)


def same(a, b):
    return a.mode == b.mode and a.size == b.size and a.tobytes() == b.tobytes()


def test_pixels_come_back(small, whole):
    assert same(hvcodec.decode(whole), small)


@pytest.mark.parametrize("size", [(1, 1), (2, 1), (1, 2), (3, 5), (65, 31), (64, 64)])
def test_any_size(photo, size):
    picture = photo.resize(size)
    assert same(hvcodec.decode(hvcodec.encode(picture, lossless=True)), picture)


def kinds(photo):
    noise = np.random.default_rng(1).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    clear = photo.resize((40, 30)).convert("RGBA")
    clear.putalpha(Image.fromarray(gradient(40, 30)[..., 0]))
    return {
        "noise": Image.fromarray(noise),
        "black and white": Image.fromarray((noise > 128).astype(np.uint8) * 255),
        "one colour": Image.new("RGB", (70, 20), (3, 200, 255)),
        "grey": photo.convert("L").resize((61, 43)),
        "grey, clear": clear.convert("LA"),
        "clear": clear,
    }


@pytest.mark.parametrize(
    "kind", ["noise", "black and white", "one colour", "grey", "grey, clear", "clear"]
)
@pytest.mark.parametrize("quality", [0, 68, 100])
def test_any_picture_over_any_quality(photo, kind, quality):
    picture = kinds(photo)[kind]
    assert same(hvcodec.decode(hvcodec.encode(picture, quality, lossless=True)), picture)


def test_palettes_are_rgb(photo):
    picture = photo.resize((40, 30)).quantize(30)
    back = hvcodec.decode(hvcodec.encode(picture, lossless=True))
    assert same(back, picture.convert("RGB"))


def test_grey_takes_a_third_of_the_symbols(photo, network):
    rgb = np.asarray(photo.convert("L").resize((64, 64)).convert("RGB"))
    shown = rgb.astype(np.int16) * UNIT
    full, grey = (network.lossless.encode(rgb, shown, [100] * 7, flag) for flag in (False, True))
    pixels = [sum(len(coded.symbols) for coded in passes) for passes in (full, grey)]
    assert pixels[1] == pytest.approx(pixels[0] / 3, rel=0.02)


@pytest.fixture(scope="module")
def network():
    return engine.load(modelfile.locate())


def test_a_cut_leaves_the_lossy_file(small, whole):
    """All layers but the last are those of the lossy file at the same quality, picture and all."""
    lossy = hvcodec.encode(small, 68)
    found = hvcodec.info(whole)
    assert [layer["name"] for layer in found["layers"]][-2:] == ["z1", "exact"]
    cut = hvcodec.cut(whole, layers=7)
    # The exact layer lends bits to all rows of the last pass; a lossy file has to leave out some.
    assert abs(len(cut) - len(lossy)) <= 8 + 0.01 * len(lossy)
    assert same(hvcodec.decode(cut), hvcodec.decode(lossy))
    assert same(hvcodec.decode(whole, layers=7), hvcodec.decode(lossy))
    assert same(hvcodec.decode(whole, layers=3), hvcodec.decode(lossy, layers=3))
    assert same(hvcodec.decode(whole, reduce=8), hvcodec.decode(lossy, reduce=8))
    assert same(hvcodec.decode(whole[:-5], partial=True), hvcodec.decode(lossy))


@pytest.mark.parametrize("weights", ["progressive", "detail-first", {"z1": np.inf, "z2": np.inf}])
def test_over_any_layers(small, weights):
    data = hvcodec.encode(small, 60, weights, lossless=True)
    assert same(hvcodec.decode(data), small)


def test_effort_judges_the_lossy_part(small):
    """Its layers are those that the same search finds for a lossy file."""
    whole = hvcodec.encode(small, 68, effort=1, lossless=True)
    assert same(hvcodec.decode(whole), small)
    lossy = hvcodec.decode(hvcodec.encode(small, 68, effort=1))
    assert same(hvcodec.decode(whole, layers=7), lossy)


def test_tiles_and_regions(photo, monkeypatch):
    monkeypatch.setattr(container, "tile_size", lambda width, height: 128)
    picture = photo.crop((0, 0, 300, 200))
    data = hvcodec.encode(picture, lossless=True)
    assert same(hvcodec.decode(data), picture)
    for x, y, width, height in (
        (0, 0, 1, 1),
        (120, 130, 20, 60),
        (129, 0, 100, 128),
        (290, 190, 10, 10),
    ):
        found = hvcodec.decode(data, region=(x, y, width, height))
        assert same(found, picture.crop((x, y, x + width, y + height)))


def test_smaller_than_others_make_it(photo):
    """By 3 % than WebP at its best, on a photograph."""
    import io

    other = io.BytesIO()
    photo.save(other, "WEBP", lossless=True, method=6, quality=100)
    assert len(hvcodec.encode(photo, lossless=True)) < 0.97 * other.tell()


def test_coded_size_is_what_the_tables_say(photo, network):
    rgb = np.asarray(photo)[:128, :192]
    shown = np.clip(
        rgb.astype(np.int16) * UNIT + np.random.default_rng(0).integers(-90, 90, rgb.shape), 0, 4080
    )
    shown = shown.astype(np.int16)
    passes = network.lossless.encode(rgb, shown, [110] * 7, False)
    ideal = 0.0
    for coded in passes:
        reach = coded.tables.reaches[coded.index.table]
        for table in np.unique(coded.index.table):
            counts = coded.tables.counts(int(table))
            here = coded.index.table == table
            at = coded.symbols[here] + reach[here]
            assert (abs(coded.symbols[here]) <= reach[here]).all()
            ideal += float((24 - np.log2(counts[at])).sum())
    assert 8 * len(b"".join(push([passes]))) == pytest.approx(ideal, rel=0.005)


def test_tables_are_the_mixture(network):
    """Masses against the likelihood that was trained, for means between whole numbers too."""
    import torch

    from hvcodec.likelihood import bits, wide_part

    tail = torch.from_numpy(network.network.tensors["lossless.tail"])
    rng = np.random.default_rng(0)
    for level in (0, 17, 40, 64, SCALES - 1):
        fraction, shape = int(rng.integers(FRACTIONS)), int(rng.integers(SHAPES))
        tables = network.lossless.tables
        table = (level * FRACTIONS + fraction) * SHAPES + shape
        counts, reach = tables.counts(table), int(tables.reaches[table])
        assert counts.sum() == 1 << 24 and counts.min() >= 1 and len(counts) == 2 * reach + 2
        symbols = torch.arange(-reach, reach + 1, dtype=torch.float32) - fraction / UNIT
        scale = torch.tensor(2.0 ** (level / SCALES_PER_OCTAVE + LOWEST))
        wanted = (
            2 ** -bits(symbols, scale, *wide_part(tail, torch.tensor(shape / (SHAPES - 1)))).numpy()
        )
        assert counts[:-1] / (1 << 24) == pytest.approx(wanted, abs=3e-6, rel=1e-3)


def test_what_runs_is_what_was_trained(photo, network, monkeypatch):
    """Bits of the exact network and its tables, against the network in floating point; and corrections
    save a lot where the decoded picture errs in another way than usually."""
    import torch

    from hvcodec import lossless_model
    from hvcodec.model import Model

    own = {
        k[9:]: torch.from_numpy(v)
        for k, v in network.network.tensors.items()
        if k.startswith("lossless.")
    }
    model = lossless_model.LosslessModel()
    model.load_state_dict(own)
    rgb, steps = np.asarray(photo)[:128, :192], [110] * 7
    noise = np.random.default_rng(0).normal(0, 2, rgb.shape)
    shown = np.rint(np.clip(rgb + noise, 0, 255) * UNIT).astype(np.int16)

    def coded():
        return 8 * len(b"".join(push([network.lossless.encode(rgb, shown, steps, False)])))

    fitted = coded()
    monkeypatch.setattr(lossless, "fitted", lambda *_: Correction(0, ()))
    plain = coded()
    assert fitted < 0.95 * plain
    with torch.inference_mode():
        planes = [
            torch.from_numpy(a.transpose(2, 0, 1).astype(np.float32))[None] for a in (rgb, shown / UNIT)
        ]
        ideal = float(model(*planes, Model.condition(torch.tensor([steps]))).sum())
    assert plain == pytest.approx(ideal, rel=0.005)


@pytest.mark.parametrize("goal", ["target_bpp", "target_size", "target_psnr"])
def test_a_lossless_file_has_no_target(small, goal):
    with pytest.raises(hvcodec.UsageError, match="lossless"):
        hvcodec.encode(small, lossless=True, **{goal: 30})


def test_what_cannot_be_lossless(small):
    with pytest.raises(hvcodec.ModelError, match="no lossless layer"):
        hvcodec.encode(small, lossless=True, model="photo3")
    with pytest.raises(hvcodec.UnsupportedError, match="CMYK"):
        hvcodec.encode(small.convert("CMYK"), lossless=True)


def test_damage_is_an_error_in_one_line(whole):
    """Words that no encoder wrote, under checks that hold."""
    rng = np.random.default_rng(0)
    for _ in range(5):
        file = container.read(whole)
        segments = [file.segment(layer, 0) for layer in range(file.layers)]
        segments[-1] = rng.bytes(len(segments[-1]) // 8 * 4)
        with pytest.raises(hvcodec.FormatError, match="do not fit"):
            hvcodec.decode(container.write(file.header, segments))


def test_words_left_over_are_an_error(whole):
    file = container.read(whole)
    segments = [file.segment(layer, 0) for layer in range(file.layers)]
    segments[-1] += b"\1\2\3\4"
    with pytest.raises(hvcodec.FormatError, match="do not fit"):
        hvcodec.decode(container.write(file.header, segments))


def test_a_flag_without_a_layer_for_it(whole):
    """A file of one layer cannot be a lossless layer alone."""
    header = container.read(whole).header
    header.steps = []
    with pytest.raises(hvcodec.FormatError, match="no layers"):
        container.read(container.write(header, [b""]))
