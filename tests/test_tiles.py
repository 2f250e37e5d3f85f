"""Large pictures: tiles that stand alone, pixels that do not show where they meet."""

import numpy as np
import pytest
from conftest import gradient, psnr
from PIL import Image

import hvcodec
from hvcodec import container, encoder, engine, modelfile, picture, tiles
from hvcodec.container import Header
from hvcodec.ladder import LAYERS


@pytest.fixture
def tiled(monkeypatch):
    """Tiles of 128 pixels from now on."""
    monkeypatch.setattr(container, "tile_size", lambda width, height: 128)


def test_large_pictures_have_tiles():
    assert container.tile_size(2048, 2048) == container.tile_size(1, 65536) == 0
    assert container.tile_size(2049, 2048) == container.tile_size(1 << 24, 16) == 1024


@pytest.mark.parametrize("side", [64, 128, 192])
def test_pixels_are_those_of_the_whole_picture(side):
    """The synthesis of the latents side by side, whatever the windows that it is made in."""
    network = engine.load(modelfile.locate())
    rng = np.random.default_rng(0)
    steps = [130] * 7
    trunk = network.network.closing_head.matrix.shape[0]
    features = rng.normal(0, 30, (32, 48, 192 + trunk)).astype(np.float32)
    whole = network.synthesise(features, steps)
    header = Header(384, 256, network.id, steps, side)
    places = tiles.tiles(header)

    def find(number):
        rows, columns = (slice(s.start // 8, s.stop // 8) for s in places[number])
        return engine.Found(features[rows, columns], steps)

    assert (tiles.picture(header, network, find) == whole).all()


def test_no_seam_is_visible(photo, monkeypatch):
    """Steps of the error across the borders of tiles are those that a single tile has there: in many
    parts of the photograph, for it differs by 30 % from one to the next."""
    steps = []
    places = (0, 0), (16, 0), (32, 8), (48, 24), (80, 40), (100, 60), (60, 90), (20, 70)
    parts = [photo.crop((x, y, *photo.size)) for x, y in places]
    for side in (0, 128):
        monkeypatch.setattr(container, "tile_size", lambda width, height, side=side: side)
        found = []
        for part in parts:
            error = np.asarray(hvcodec.decode(hvcodec.encode(part, 30))).astype(float) - part
            for lines in (error, error.transpose(1, 0, 2)):
                borders = np.arange(128, len(lines), 128)
                found += [np.square(lines[y] - lines[y - 1]).mean() for y in borders]
        steps.append(np.mean(found))
    assert steps[1] < 1.1 * steps[0]


@pytest.mark.parametrize("size", [(384, 256), (1, 1), (129, 65), (64, 300), (257, 128)])
def test_any_size(photo, tiled, size):
    picture = photo.resize(size)
    back = hvcodec.decode(hvcodec.encode(picture, 90))
    assert back.size == size and psnr(picture, back) > 34


@pytest.mark.parametrize("weights", ["balanced", "progressive"])
def test_a_region_is_what_the_whole_picture_has_there(photo, tiled, weights):
    data = hvcodec.encode(photo, 40, weights)
    for layers in (4, None):
        whole = np.asarray(hvcodec.decode(data, layers))
        for region in (
            (0, 0, 384, 256),
            (100, 90, 60, 70),
            (127, 127, 2, 2),
            (383, 255, 1, 1),
            (5, 200, 9, 3),
        ):
            x, y, width, height = region
            part = np.asarray(hvcodec.decode(data, layers, region=region))
            assert (part == whole[y : y + height, x : x + width]).all(), region


def test_a_region_needs_only_the_tiles_around_it(photo, tiled):
    """What other tiles hold may be damaged."""
    data = bytearray(hvcodec.encode(photo, 40))
    file = container.read(bytes(data))
    ends = file.ends
    tiles_per_layer = file.header.tile_count
    for layer in range(file.layers):
        data[ends[layer * tiles_per_layer + 5] - 3] ^= 1
    damaged = bytes(data)
    region = (10, 10, 80, 80)
    expected = hvcodec.decode(hvcodec.encode(photo, 40), region=region)
    assert hvcodec.decode(damaged, region=region).tobytes() == expected.tobytes()
    for other in (None, (10, 10, 300, 200)):
        with pytest.raises(hvcodec.FormatError, match="damaged"):
            hvcodec.decode(damaged, region=other)


def test_a_region_of_grey_and_alpha(photo):
    picture = photo.convert("L")
    picture.putalpha(Image.fromarray(gradient(*photo.size)[..., 0]))
    data = hvcodec.encode(picture, 40)
    whole, part = hvcodec.decode(data), hvcodec.decode(data, region=(50, 60, 70, 80))
    assert part.mode == "LA" and part.tobytes() == whole.crop((50, 60, 120, 140)).tobytes()


@pytest.mark.parametrize(
    "region",
    [
        (0, 0, 0, 5),
        (-1, 0, 5, 5),
        (0, 0, 385, 1),
        (0, 256, 1, 1),
        (5, 5, 10, -2),
        (0, 0, 5),
        (0, 0, 5.5, 5),
        "0,0,5,5",
    ],
)
def test_regions_outside_the_picture(stream, region):
    with pytest.raises(hvcodec.UsageError, match="384x256"):
        hvcodec.decode(stream, region=region)


def test_a_file_that_ends_anywhere(stream):
    points = hvcodec.info(stream)["cut_points"]
    for extra in (1, 2, 5):
        cut = stream[: points[4] + extra]
        with pytest.raises(hvcodec.FormatError, match="inside layer 6"):
            hvcodec.decode(cut)
        assert hvcodec.decode(cut, partial=True) == hvcodec.decode(stream[: points[4]])
    for hopeless in (stream[: points[0] - 1], stream[:30], stream + b"x"):
        with pytest.raises(hvcodec.FormatError, match="the file ends"):
            hvcodec.decode(hopeless, partial=True)


def test_a_limit_on_pixels(stream):
    hvcodec.decode(stream, max_pixels=384 * 256)
    with pytest.raises(hvcodec.UnsupportedError, match="384x256"):
        hvcodec.decode(stream, max_pixels=384 * 256 - 1)


def test_targets_are_those_of_the_whole_picture(photo, tiled):
    data = hvcodec.encode(photo, target_psnr=33)
    assert 32.8 < psnr(photo, hvcodec.decode(data)) <= 33
    found = np.empty((256, 384, 3), np.uint8)
    network = engine.load(modelfile.locate())
    coder = encoder.Encoder(network, picture.from_image(photo), [1.0] * 7)
    data = coder.encode(0.02, decoded=found)
    assert (found == np.asarray(hvcodec.decode(data))).all()


@pytest.mark.parametrize("side", [0, 128])
@pytest.mark.parametrize("weights", ["balanced", "progressive"])
def test_latents_are_the_picture_in_coefficients(photo, monkeypatch, side, weights):
    monkeypatch.setattr(container, "tile_size", lambda width, height: side)
    data = hvcodec.encode(photo.crop((0, 0, 300, 200)), 90, weights)
    found = hvcodec.latents(data)
    assert [values.shape for values in found.values()] == [
        (-(-200 // 64) * 64 // la.stride, -(-300 // 64) * 64 // la.stride, la.channels) for la in LAYERS
    ]
    transform = engine.load(modelfile.locate()).network.transform
    linear = transform.pixels(transform.join(list(found.values())))[:200, :300] + 128
    assert psnr(linear, hvcodec.decode(data)) > 40


def test_latents_of_the_first_layers(stream):
    whole, few = hvcodec.latents(stream), hvcodec.latents(stream, layers=3)
    for la in LAYERS[:3]:
        assert np.allclose(whole[la.name], few[la.name], atol=1e-3)
    # What the others predict of the rest is mostly that it is small.
    assert np.square(few["z1"]).sum() < 0.1 * np.square(whole["z1"]).sum()
