"""Graphs in onnxruntime find the same pixels as the package."""

import hashlib
import json

import onnx
import onnxruntime
import pytest
from click.testing import CliRunner
from make_golden import FOLDER, INDEX
from onnx_decoder import Graphs, decode
from PIL import Image

import hvcodec
from hvcodec import cli, container, errors, modelfile

GOLDEN = json.loads(INDEX.read_text())
LEVELS = onnxruntime.GraphOptimizationLevel


def options(threads=1, level=LEVELS.ORT_ENABLE_ALL):
    found = onnxruntime.SessionOptions()
    found.intra_op_num_threads, found.graph_optimization_level = threads, level
    return found


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Graphs of every shipped model, by its id."""
    found = {}
    for model_id in modelfile.shipped():
        found[model_id] = tmp_path_factory.mktemp(model_id)
        name = modelfile.name_of(model_id)
        result = CliRunner().invoke(cli.main, ["export-onnx", name, str(found[model_id])])
        assert result.exit_code == 0, result.output
    return found


@pytest.fixture(scope="module")
def graphs(folders):
    return {model_id: Graphs(folder, options()) for model_id, folder in folders.items()}


def pixels_hash(pixels, alpha=None):
    image = Image.fromarray(pixels)
    if alpha is not None:
        image.putalpha(alpha)
    content = f"{image.mode} {image.width} {image.height} ".encode() + image.tobytes()
    return hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_files_decode_to_their_pixels(name, graphs):
    data = (FOLDER / f"{name}.hvc").read_bytes()
    pixels = decode(data, graphs[container.read(data).header.model_id])
    # An alpha plane is a PNG of its own.
    alpha = hvcodec.decode(data).getchannel("A") if "alpha" in name else None
    assert pixels_hash(pixels, alpha) == GOLDEN[name]["pixels"]


@pytest.mark.parametrize(
    "threads,level",
    [(1, "DISABLE_ALL"), (1, "ENABLE_BASIC"), (2, "ENABLE_EXTENDED"), (2, "ENABLE_ALL")],
)
def test_threads_and_optimisations_change_nothing(threads, level, folders):
    chosen = options(threads, getattr(LEVELS, f"ORT_{level}"))
    data = (FOLDER / "lossless-progressive.hvc").read_bytes()
    pixels = decode(data, Graphs(folders[container.read(data).header.model_id], chosen))
    assert pixels_hash(pixels) == GOLDEN["lossless-progressive"]["pixels"]


def test_graphs_use_standard_operators_of_one_version(folders):
    for folder in folders.values():
        for path in folder.glob("*.onnx"):
            model = onnx.load(path)
            assert [(used.domain, used.version) for used in model.opset_import] == [("", 18)]
            assert {node.domain for node in model.graph.node} == {""}
            assert not {node.op_type for node in model.graph.node} & {"Erf", "Exp", "Pow", "Sigmoid"}


def test_weights_take_no_more_room_than_in_the_model_file(folders):
    for model_id, folder in folders.items():
        size = sum(path.stat().st_size for path in folder.iterdir())
        assert size < 1.02 * modelfile.shipped()[model_id].stat().st_size


def test_export_of_what_is_no_model_is_one_line_and_writes_nothing(tmp_path):
    (tmp_path / "model").write_bytes(b"not a model")
    result = CliRunner().invoke(cli.main, ["export-onnx", str(tmp_path / "model"), str(tmp_path / "x")])
    assert result.exit_code == 1
    assert result.output.startswith("hvcodec: model is not a hvcodec model: ")
    assert result.output.count("\n") == 1
    assert not (tmp_path / "x").exists()


def test_export_without_onnx_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setattr(errors, "find_spec", lambda name: None)
    result = CliRunner().invoke(cli.main, ["export-onnx", "photo5", str(tmp_path / "x")])
    assert result.exit_code == 1
    assert result.output == "hvcodec: exporting graphs needs onnx: pip install hvcodec[onnx]\n"
