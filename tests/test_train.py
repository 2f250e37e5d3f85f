"""Train a tiny model, resume it, export it, code a picture with it."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest
from click.testing import CliRunner
from conftest import gradient, psnr
from PIL import Image

import hvcodec
from hvcodec import cli, data, encoder, modelfile

TINY = json.dumps(
    {"widths": [16, 16, 16, 16], "blocks": [1, 1, 1, 1, 2, 1, 1], "closing_blocks": 1}
    | {"analysis_width": 8, "analysis_blocks": 1, "middle_blocks": 0}
    | {"synthesis_width": 8, "synthesis_blocks": 1, "groups": 2, "follower_width": 8}
)


def invoked(*words):
    """The command in this process, where PyTorch is loaded once. Compiling would take longer than this
    training."""
    torch = pytest.importorskip("torch")
    with torch.compiler.set_stance("force_eager"):
        return CliRunner().invoke(cli.main, [*map(str, words)])


def hvc(*words):
    result = invoked(*words)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.mark.slow
def test_train_resume_export_encode_decode(tmp_path, photo):
    pictures, folder, model = tmp_path / "pictures", tmp_path / "run", tmp_path / "my.safetensors"
    untrained = tmp_path / "untrained.safetensors"
    pictures.mkdir()
    photo.save(pictures / "photo.png")
    Image.fromarray(gradient(90, 300)).save(pictures / "small.png")
    (pictures / "broken.png").write_bytes((pictures / "photo.png").read_bytes()[:3000])

    own = ("--config", TINY, "--recipe", '{"batch_pixels": 32768, "warmup": 10}')
    hvc("train", pictures, "--run", folder, "--pixels", "1", *own)
    hvc("export", folder, untrained)
    # Asked for more, the same run goes on where it stopped.
    hvc("train", pictures, "--run", folder, "--pixels", "3e6", *own)
    steps = [json.loads(line)["step"] for line in (folder / "log.jsonl").read_text().splitlines()]
    assert steps[0] > 20
    assert len(set(steps)) == len(steps)

    for words in (("--seed", "2"), ("--config", "{}")):
        failed = invoked(
            "train", pictures, "--run", folder, "--pixels", "5e7", "--config", TINY, *words
        )
        assert failed.exit_code == 1
        assert "another network, seed or data" in failed.stderr

    model_id = hvc("export", folder, model).strip()
    card = modelfile.card(model)
    assert card["training"]["pixels"] >= 3e6
    assert card["training"]["recipe"]["seed"] == 1
    assert len(card["training"]["data_sha256"]) == 64

    picture, stream = tmp_path / "photo.png", tmp_path / "photo.hvc"
    photo.save(picture)
    hvc("encode", picture, "-q", "60", "--model", model)
    assert hvcodec.info(stream.read_bytes())["model"] == model_id
    with pytest.raises(hvcodec.ModelError, match=model_id):
        hvcodec.decode(stream.read_bytes())
    hvc("decode", stream, "--model", model, "-o", tmp_path / "back.png")
    assert psnr(photo, Image.open(tmp_path / "back.png")) > 28

    lam = 0.02

    def cost(model):
        # Of the network alone: the rest mends much of what an untrained one lacks.
        with mock.patch.object(encoder, "fit", lambda *_: None):
            data = hvcodec.encode(photo, lam=lam, model=model, bits_back=False)
        mse = 255**2 / 10 ** (psnr(photo, hvcodec.decode(data, model=model)) / 10)
        return 8 * len(data) / (photo.width * photo.height) + lam * mse

    assert cost(model) < 0.9 * cost(untrained)

    # A model file is also where another run can start.
    again, started = tmp_path / "again", tmp_path / "started.safetensors"
    first = ("--config", TINY, "--recipe", '{"crop": [[0, 64]], "batch_pixels": 8192}')
    hvc("train", pictures, "--run", again, "--pixels", "1", *first, "--init", model)
    hvc("export", again, started)
    assert cost(started) < 0.9 * cost(untrained)

    # A lossless layer for it, which goes into a file of the same model.
    layer, both = tmp_path / "layer", tmp_path / "both.safetensors"
    own = (
        "--config",
        '{"width": 8, "blocks": [1, 1, 1, 1]}',
        "--recipe",
        '{"crop": [[0, 64]], "batch_pixels": 32768, "warmup": 10}',
    )
    hvc("train", pictures, "--run", layer, "--pixels", "1.4e6", *own, "--lossless", model)
    found = [json.loads(line)["bits"] for line in (layer / "log.jsonl").read_text().splitlines()]
    assert found[-1] < found[0]
    hvc("export", folder, both, "--lossless", layer)
    assert modelfile.card(both)["lossless"]["config"]["width"] == 8
    small = photo.crop((0, 0, 70, 50))
    exact = hvcodec.decode(hvcodec.encode(small, model=both, lossless=True), model=both)
    assert exact.tobytes() == small.tobytes()


@pytest.mark.parametrize(
    "words",
    [
        ("--pixels", "nan"),
        ("--pixels", "inf"),
        ("--config", "[]"),
        ("--config", '{"blocks": "a"}'),
        ("--config", '{"blocks": [1]}'),
        ("--recipe", "[]"),
        ("--recipe", '{"crop": 7}'),
        ("--recipe", '{"ratee": 1}'),
        ("--recipe", '{"crop": [[0, 100]]}'),
    ],
)
def test_wrong_training_arguments(tmp_path, photo, words):
    from click.testing import CliRunner

    from hvcodec.cli import main

    photo.save(tmp_path / "photo.png")
    run = str(tmp_path / "run")
    result = CliRunner().invoke(main, ["train", str(tmp_path), "--run", run, *words])
    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == 1


def test_a_run_that_diverges_keeps_its_last_good_checkpoint(tmp_path, photo, monkeypatch):
    from hvcodec import train
    from hvcodec import trainer as training
    from hvcodec.model import Config

    (tmp_path / "pictures").mkdir()
    photo.save(tmp_path / "pictures" / "photo.png")
    data.pack(tmp_path / "pictures", tmp_path / "pictures.bin")
    trainer = train.PhotoTrainer(tmp_path, training.Recipe(), Config.from_dict(json.loads(TINY)))
    trainer.start(None)
    norms = iter([1.0] * 4 + [4.0] * 4 + [30.0] * 4)

    def step():
        trainer.step += 1
        return {"loss": 1.0, "norm": next(norms)}

    monkeypatch.setattr(trainer, "train_step", step)
    with pytest.raises(hvcodec.HvcError, match="diverges"):
        trainer.run(log_every=2, save_every=0.0)
    trainer.load()
    assert trainer.step == 5  # saved after every calm step, up to the first restless stretch's end


def test_a_run_goes_on_with_its_own_kind_of_network_alone(tmp_path, photo):
    from hvcodec import train
    from hvcodec import trainer as training
    from hvcodec.lossless_model import Config as LosslessConfig
    from hvcodec.lossless_model import LosslessModel
    from hvcodec.model import Config

    (tmp_path / "pictures").mkdir()
    photo.save(tmp_path / "pictures" / "photo.png")
    data.pack(tmp_path / "pictures", tmp_path / "pictures.bin")
    by_stride = json.loads(TINY) | {"blocks": [1, 1, 1, 2]}
    recipe = training.Recipe()
    trainer = train.PhotoTrainer(tmp_path, recipe, Config.from_dict(by_stride))
    trainer.start(None)
    # Older runs wrote blocks by stride.
    older = trainer.state() | {"config": trainer.model.config.to_dict() | by_stride}
    training.torch.save(older, tmp_path / "checkpoint.pt")
    trainer.load()
    other = training.Trainer(tmp_path, recipe, LosslessModel(LosslessConfig()))
    with pytest.raises(hvcodec.UsageError, match="another network"):
        other.load()


@pytest.mark.parametrize("lossless", [False, True])
def test_training_in_bfloat16_is_training(tmp_path, photo, monkeypatch, lossless):
    """On every processor, also where it is slow and a run would choose float32."""
    torch = pytest.importorskip("torch")
    from hvcodec import lossless_train, train
    from hvcodec import trainer as training
    from hvcodec.lossless_model import Config as LosslessConfig
    from hvcodec.model import Config

    (tmp_path / "pictures").mkdir()
    photo.save(tmp_path / "pictures" / "photo.png")
    data.pack(tmp_path / "pictures", tmp_path / "pictures.bin")
    recipe = training.Recipe(batch_pixels=4 * 64 * 64, crop=((0.0, 64),))

    def notes(dtype):
        monkeypatch.setattr(training, "fast_dtype", lambda: dtype)
        if lossless:
            sizes = LosslessConfig.from_dict({"width": 8, "blocks": (1, 1, 1, 1)})
            trainer = lossless_train.LosslessTrainer(tmp_path, recipe, sizes, modelfile.locate())
        else:
            trainer = train.PhotoTrainer(tmp_path, recipe, Config.from_dict(json.loads(TINY)))
            trainer.start(None)
        with torch.compiler.set_stance("force_eager"):
            return trainer.train_step()

    exact, rough = notes(torch.float32), notes(torch.bfloat16)
    what = "bits" if lossless else "log_j"
    assert rough["norm"] != exact["norm"]  # products did round
    assert rough[what] == pytest.approx(exact[what], rel=0.02)
    assert rough["norm"] == pytest.approx(exact["norm"], rel=0.2)


@pytest.mark.slow
def test_the_tutorial_in_miniature(tmp_path, photo):
    torch = pytest.importorskip("torch")
    root = Path(__file__).parent.parent
    page = (root / "docs" / "train-your-own.md").read_text()
    commands = "".join(re.findall(r"```sh\n(.*?)```", page, re.DOTALL))
    # The page's own words, for a network and a time that a test can afford.
    small = f"--config '{TINY}' --recipe '{{\"batch_pixels\": 32768}}'"
    commands, settings = re.subn("--config '[^']*'", small, commands)
    commands, lengths = re.subn(r"--pixels (\S+)", lambda m: f"--pixels {float(m[1]) * 1e-4}", commands)
    assert settings == lengths == 2
    for folder in ("photos", "held-out"):
        (tmp_path / folder).mkdir()
    photo.save(tmp_path / "photos" / "photo.jpg")
    photo.crop((0, 0, 200, 192)).save(tmp_path / "held-out" / "a.png")
    (tmp_path / "benchmarks").symlink_to(root / "benchmarks")
    prelude = f"""
        hvcodec() {{ {sys.executable} -m hvcodec "$@"; }}
        python() {{ {sys.executable} "$@"; }}
        torchrun() {{ {sys.executable} -m torch.distributed.run --standalone "$@"; }}
    """
    environment = os.environ | {"TORCHDYNAMO_DISABLE": "1", "OMP_NUM_THREADS": "1"}
    command = ["bash", "-euo", "pipefail", "-c", prelude + commands]
    subprocess.run(command, check=True, cwd=tmp_path, env=environment, capture_output=True)

    state = torch.load(tmp_path / "runs" / "mine" / "checkpoint.pt", weights_only=True)
    assert state["counters"]["pixels"] >= 2e5  # both trainings
    model_id = modelfile.identify((tmp_path / "mine.safetensors").read_bytes())
    assert hvcodec.info((tmp_path / "coded" / "a.hvc").read_bytes())["model"] == model_id
    held_out, back = (Image.open(tmp_path / folder / "a.png") for folder in ("held-out", "decoded"))
    assert psnr(held_out, back) > 25
    tables = [(tmp_path / "results" / name / "bd-rate.md").read_text() for name in ("mine", "shipped")]
    assert "| jpeg | -" in tables[1]  # the shipped model needs fewer bits; a few steps may not do
    assert "| jpeg | " in tables[0] and tables[0] != tables[1]


def test_the_coarsest_layer_does_not_decide_what_a_batch_counts(tmp_path, photo):
    torch = pytest.importorskip("torch")
    from hvcodec import train
    from hvcodec import trainer as training
    from hvcodec.model import Config

    photo.crop((0, 0, 128, 64)).save(tmp_path / "photo.png")
    training.prepare(tmp_path, tmp_path)
    trainer = train.PhotoTrainer(tmp_path, training.Recipe(), Config.from_dict(json.loads(TINY)))
    own, other = (trainer.model.rungs[k][0].head.weight for k in (0, 3))
    own.grad, other.grad = torch.full_like(own, 1e6), torch.full_like(other, 1e-3)
    trainer.clip()
    assert own.grad.norm() < 1
    assert torch.equal(other.grad, torch.full_like(other, 1e-3))


def test_training_that_is_no_number_has_diverged(tmp_path, photo, monkeypatch):
    pytest.importorskip("torch")
    from hvcodec import train
    from hvcodec import trainer as training
    from hvcodec.model import Config

    photo.crop((0, 0, 64, 64)).save(tmp_path / "photo.png")
    training.prepare(tmp_path, tmp_path)
    trainer = train.PhotoTrainer(tmp_path, training.Recipe(), Config.from_dict(json.loads(TINY)))
    nothing = {"loss": float("nan"), "norm": float("nan")}
    monkeypatch.setattr(trainer, "train_step", lambda: nothing)
    with pytest.raises(hvcodec.HvcError, match="diverges"):
        trainer.run(log_every=2)
    assert not (tmp_path / "checkpoint.pt").exists()


@pytest.mark.parametrize("content", [b"", b"junk", b"PK\x03\x04"])
def test_a_broken_checkpoint_is_said(tmp_path, content):
    pytest.importorskip("torch")
    from hvcodec import trainer as training

    (tmp_path / "checkpoint.pt").write_bytes(content)
    with pytest.raises(hvcodec.ModelError, match="not a training checkpoint"):
        training.read(tmp_path / "checkpoint.pt")


@pytest.mark.parametrize(
    "wrong", [{"crop": ((0.1, 128),)}, {"crop": ((0, 128.0),)}, {"batch_pixels": 1e6}, {"seed": 1.5}]
)
def test_recipes_that_cannot_be(wrong):
    pytest.importorskip("torch")
    from hvcodec.trainer import Recipe

    with pytest.raises((TypeError, ValueError)):
        Recipe(**wrong)


@pytest.mark.slow
def test_two_processes_train_like_one(tmp_path, photo):
    torch = pytest.importorskip("torch")
    (tmp_path / "pictures").mkdir()
    photo.save(tmp_path / "pictures" / "photo.png")
    script = Path(__file__).with_name("several_processes.py")
    environment = os.environ | {"TORCHDYNAMO_DISABLE": "1", "OMP_NUM_THREADS": "1"}
    step = 4 * 64 * 64  # pixels

    losses = []

    def trained(name, launcher, *stops):
        folder, out = tmp_path / name, tmp_path / f"{name}-out"
        folder.mkdir()
        out.mkdir()
        data.pack(tmp_path / "pictures", folder / "pictures.bin")
        for steps in stops:
            command = [sys.executable, *launcher, script, folder, out, TINY, str(steps * step)]
            subprocess.run(command, check=True, capture_output=True, env=environment)
        log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
        assert [entry["step"] for entry in log] == [1, 2, 3, 4]  # one process writes it
        losses.append([entry["loss"] for entry in log])
        return [torch.load(path, weights_only=True) for path in sorted(out.iterdir())]

    (alone,) = trained("one", (), 4)
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    first, second = trained("two", torchrun, 2, 4)  # stops after two steps, and goes on
    for name, weights in alone.items():
        assert torch.equal(first[name], second[name]), name
        torch.testing.assert_close(first[name], weights, rtol=1e-4, atol=2e-5, msg=name)
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)
    assert len(set(losses[0])) == 4


def test_a_file_that_is_no_checkpoint(tmp_path):
    from hvcodec.export import export

    for content in (b"", b"junk" * 9):
        (tmp_path / "checkpoint.pt").write_bytes(content)
        with pytest.raises(hvcodec.ModelError, match="not a training checkpoint"):
            export(tmp_path / "checkpoint.pt", tmp_path / "model.safetensors")


def test_no_pictures_to_train_on(tmp_path):
    from click.testing import CliRunner

    from hvcodec.cli import main

    result = CliRunner().invoke(main, ["train", str(tmp_path), "--run", str(tmp_path / "run")])
    assert result.exit_code == 1
    assert "no files found" in result.stderr
