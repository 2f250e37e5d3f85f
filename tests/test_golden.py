"""Files that older versions wrote decode to what they always did."""

import json

import numpy as np
import pytest
import second_decoder
from make_golden import FOLDER, INDEX, hashes

import hvcodec
from hvcodec import container, modelfile

GOLDEN = json.loads(INDEX.read_text())


@pytest.mark.parametrize("name", GOLDEN)
def test_symbols_and_pixels_are_what_they_were(name):
    assert hashes((FOLDER / f"{name}.hvc").read_bytes()) == GOLDEN[name]


@pytest.mark.parametrize("name", GOLDEN)
def test_the_second_decoder_agrees(name):
    data = (FOLDER / f"{name}.hvc").read_bytes()
    file = container.read(data)
    model = modelfile.locate(None, file.header.model_id)
    network = second_decoder.Network(model.read_bytes())
    picture = hvcodec.decode(data)
    colours = picture.convert(picture.mode.removesuffix("A"))
    assert (second_decoder.decode(data, network) == np.asarray(colours)).all()


def test_no_golden_file_is_lost():
    assert sorted(GOLDEN) == sorted(path.stem for path in FOLDER.glob("*.hvc"))
