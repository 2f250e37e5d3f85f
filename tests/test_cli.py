"""The command line: what people type, and what they see when something is wrong."""

import io
import json
import os
import subprocess
import sys

import pytest
from click.testing import CliRunner
from conftest import PICTURES, psnr
from PIL import Image

import hvcodec
from hvcodec import modelfile
from hvcodec.cli import main


def run(*args, data=None):
    return CliRunner().invoke(main, [str(a) for a in args], input=data)


def one_error_line(result):
    lines = [line for line in result.stderr.splitlines() if line.strip()]
    return (
        result.exit_code == 1
        and len(lines) == 1
        and "hvcodec" in lines[0]
        and "Traceback" not in result.output
    )


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "photo.png"
    path.write_bytes((PICTURES / "parrots.png").read_bytes())
    return path


@pytest.fixture
def hvc(tmp_path, stream):
    path = tmp_path / "photo.hvc"
    path.write_bytes(stream)
    return path


def test_encode_then_decode_beside_the_original(picture, tmp_path, photo, stream):
    assert run("encode", picture).exit_code == 0
    assert (tmp_path / "photo.hvc").read_bytes() == stream
    original = picture.read_bytes()
    result = run("decode", tmp_path / "photo.hvc")
    assert result.exit_code == 0
    assert "7 of 7 layers" in result.stderr
    assert picture.read_bytes() == original
    assert psnr(photo, Image.open(tmp_path / "photo.decoded.png")) > 30
    picture.unlink()
    assert run("decode", tmp_path / "photo.hvc").exit_code == 0
    assert Image.open(picture).size == photo.size


def test_options_mean_what_the_api_means(picture, tmp_path, photo):
    out = tmp_path / "out.hvc"
    cases = {
        ("-q", "33.5"): {"quality": 33.5},
        ("--lambda", "0.05"): {"lam": 0.05},
        ("--target-size", "5000"): {"target_size": 5000},
        ("--rate-weights", "preview-first"): {"rate_weights": "preview-first"},
        ("--rate-weights", "z1=inf, z4=0.5"): {"rate_weights": {"z1": float("inf"), "z4": 0.5}},
        ("--rate-weights", "progressive"): {"rate_weights": "progressive"},
        ("--effort", "1", "--tune", "ms-ssim"): {"effort": 1, "tune": "ms-ssim"},
    }
    for words, options in cases.items():
        assert run("encode", picture, "-o", out, *words).exit_code == 0
        assert out.read_bytes() == hvcodec.encode(photo, **options)


def test_folders_and_several_files(tmp_path, photo):
    for name in ("a/one.png", "a/deep/two.jpg"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        photo.crop((0, 0, 70, 70)).save(path)
    (tmp_path / "a" / "notes.txt").write_text("not a picture")
    assert run("encode", tmp_path / "a", "-o", tmp_path / "b").exit_code == 0
    found = sorted(str(p.relative_to(tmp_path / "b")) for p in (tmp_path / "b").rglob("*.hvc"))
    assert found == ["deep/two.hvc", "one.hvc"]
    assert run("decode", tmp_path / "b", "-o", tmp_path / "c").exit_code == 0
    assert Image.open(tmp_path / "c" / "deep" / "two.png").size == (70, 70)


def test_one_bad_file_does_not_stop_the_others(tmp_path, picture):
    (tmp_path / "bad.png").write_text("not a picture")
    result = run("encode", tmp_path / "bad.png", picture)
    assert result.exit_code == 1
    assert "bad.png: not a picture" in result.stderr
    assert (tmp_path / "photo.hvc").exists()
    assert not (tmp_path / "bad.hvc").exists()


def test_two_results_of_one_name_are_refused(tmp_path, picture):
    (tmp_path / "photo.jpg").write_bytes(picture.read_bytes())
    assert one_error_line(run("encode", picture, tmp_path / "photo.jpg"))
    assert not (tmp_path / "photo.hvc").exists()


def test_no_source_is_ever_overwritten(picture, hvc, tmp_path, photo):
    original = picture.read_bytes()
    assert run("decode", hvc, "-o", tmp_path).exit_code == 0
    assert picture.read_bytes() == original
    assert (tmp_path / "photo.decoded.png").exists()
    for words in (("encode", picture, "-o", picture), ("encode", picture, hvc, "-o", tmp_path)):
        assert one_error_line(run(*words))
    assert picture.read_bytes() == original
    assert one_error_line(run("encode", ""))


def test_links_are_followed_and_pipes_written_to(picture, tmp_path, stream):
    (tmp_path / "real.hvc").write_bytes(b"old")
    (tmp_path / "link.hvc").symlink_to(tmp_path / "real.hvc")
    assert run("encode", picture, "-o", tmp_path / "link.hvc").exit_code == 0
    assert (tmp_path / "link.hvc").is_symlink()
    assert (tmp_path / "real.hvc").read_bytes() == stream
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = subprocess.Popen(["cat", pipe], stdout=subprocess.PIPE)
    assert run("encode", picture, "-o", pipe).exit_code == 0
    assert reader.communicate(timeout=60)[0] == stream


def test_standard_output_by_its_name(picture, stream):
    words = [sys.executable, "-m", "hvcodec", "encode", picture, "-o", "/dev/stdout"]
    assert subprocess.run(words, check=True, stdout=subprocess.PIPE).stdout == stream


def test_permissions_stay_those_of_the_file_that_is_replaced(picture, tmp_path):
    target = tmp_path / "private.hvc"
    target.touch(0o600)
    assert run("encode", picture, "-o", target).exit_code == 0
    assert target.stat().st_mode & 0o777 == 0o600


def test_a_name_that_ends_in_a_slash_is_a_folder(picture, tmp_path, stream):
    assert run("encode", picture, "-o", f"{tmp_path}/new/").exit_code == 0
    assert (tmp_path / "new" / "photo.hvc").read_bytes() == stream


def test_absurd_arguments_are_one_line(picture, hvc):
    for words in (
        ("--lambda", "1e-320"),
        ("--target-bpp", "1e306"),
        ("--target-size", "-" + "9" * 400),
        ("--target-psnr", "99"),
        ("--quality", "nan"),
        ("--effort", "10"),
        ("--tune", "beauty"),
        ("--rate-weights", "r9=1"),
        ("--model", "m" * 300),
    ):
        assert one_error_line(run("encode", picture, *words))
    assert one_error_line(run("encode", "x" * 300))
    assert one_error_line(run("decode", hvc, "--layers", "0"))


def test_pipes(photo, stream):
    encoded = run("encode", "-", data=(PICTURES / "parrots.png").read_bytes())
    assert encoded.stdout_bytes == stream
    decoded = run("decode", "-", data=stream)
    assert psnr(photo, Image.open(io.BytesIO(decoded.stdout_bytes))) > 30


def test_the_lossless_layer_is_counted(picture, tmp_path):
    assert run("encode", picture, "--lossless").exit_code == 0
    hvc = tmp_path / "photo.hvc"
    assert "8 of 8 layers" in run("decode", hvc).stderr
    assert "8 of 8 layers" in run("verify", hvc).stderr
    assert "8 of 8 layers" in run("info", hvc).stdout


def test_only_one_file_is_cut(hvc, tmp_path):
    hvc.with_name("other.hvc").write_bytes(hvc.read_bytes())
    result = run("cut", tmp_path, "-o", tmp_path / "x", "--layers", "2")
    assert one_error_line(result) and "2 files, and one is wanted" in result.stderr


def test_info_and_cut(hvc, tmp_path, stream):
    found = json.loads(run("info", hvc, "--json").stdout)
    assert found == hvcodec.info(stream)
    text = run("info", hvc).stdout
    assert all(str(point) in text for point in found["cut_points"])
    small = tmp_path / "small.hvc"
    assert run("cut", hvc, "-o", small, "--layers", "4").exit_code == 0
    assert small.read_bytes() == stream[: found["cut_points"][3]]
    result = run("decode", small)
    assert "4 of 7 layers" in result.stderr
    assert "4 of 7 layers" in run("info", small).stdout
    assert one_error_line(run("cut", hvc, "-o", small))
    assert one_error_line(run("cut", hvc, "-o", small, "--max-bytes", "3"))


@pytest.mark.parametrize("command", ["decode", "info", "verify"])
@pytest.mark.parametrize(
    "change",
    [
        lambda b: b"",
        lambda b: b[:1000],
        lambda b: b[:10],
        lambda b: b[:2000] + bytes([b[2000] ^ 4]) + b[2001:],
        lambda b: (PICTURES / "parrots.png").read_bytes(),
        lambda b: b[:4] + b"\x63" + b[5:],
        lambda b: b[:14] + b"\xff" * 6 + b[20:],
    ],
    ids=["empty", "cut", "cut in header", "flipped bit", "png", "version", "huge"],
)
def test_bad_files_are_one_line_and_leave_nothing(hvc, tmp_path, stream, command, change):
    hvc.write_bytes(change(stream))
    result = run(command, hvc)
    if command == "info" and hvc.stat().st_size == len(stream) and stream[:30] == change(stream)[:30]:
        assert result.exit_code == 0  # info does not read the segments; verify does
    else:
        assert one_error_line(result)
    assert [p.name for p in tmp_path.iterdir()] == ["photo.hvc"]


def test_missing_files_and_unwritable_places(tmp_path, picture, hvc):
    assert one_error_line(run("encode", tmp_path / "none.png"))
    assert one_error_line(run("decode", hvc, "-o", tmp_path / "photo.png" / "x.png"))
    assert one_error_line(run("decode", hvc, "-o", tmp_path / "x.unknown"))
    assert one_error_line(run("encode", picture, "--model", "nothing"))
    assert one_error_line(run("encode", picture, "--rate-weights", "z1=much"))
    assert one_error_line(run("encode", picture, "-q", "400"))


def test_a_model_that_is_none(tmp_path, picture, hvc):
    for content in (b"", b"junk" * 100):
        (tmp_path / "my.safetensors").write_bytes(content)
        assert one_error_line(run("encode", picture, "--model", tmp_path / "my.safetensors"))
        assert one_error_line(run("decode", hvc, "--model", tmp_path / "my.safetensors"))


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_a_full_disk(hvc):
    command = [sys.executable, "-m", "hvcodec", "cut", str(hvc), "--layers", "7", "-o", "-"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "No space left" in done.stderr


def test_a_failed_write_leaves_the_old_file(tmp_path, hvc, monkeypatch):
    target = tmp_path / "old.hvc"
    target.write_bytes(b"old")

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    assert one_error_line(run("cut", hvc, "--layers", "2", "-o", target))
    assert target.read_bytes() == b"old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["old.hvc", "photo.hvc"]


KILLED = """
import os, signal, sys
from hvcodec import cli
os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
cli.main(["cut", sys.argv[1], "--layers", "2", "-o", sys.argv[2]])
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no signals here")
def test_a_killed_command_leaves_the_old_file(tmp_path, hvc):
    """At the worst moment: the result is written, but not under its name yet."""
    target = tmp_path / "old.hvc"
    target.write_bytes(b"old")
    done = subprocess.run([sys.executable, "-c", KILLED, str(hvc), str(target)])
    assert done.returncode == -9
    assert target.read_bytes() == b"old"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no shell here")
def test_a_closed_pipe_is_no_traceback(hvc):
    command = f'"{sys.executable}" -m hvcodec cut "{hvc}" --layers 7 -o - | true'
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True)
    assert "Traceback" not in done.stderr


def test_without_loss(tmp_path, photo):
    small = photo.crop((0, 0, 40, 30))
    small.save(tmp_path / "small.png")
    assert run("encode", tmp_path / "small.png", "--lossless").exit_code == 0
    assert run("decode", tmp_path / "small.hvc", "-o", tmp_path / "back.png").exit_code == 0
    assert Image.open(tmp_path / "back.png").tobytes() == small.tobytes()
    assert "exact" in run("info", tmp_path / "small.hvc").output
    assert run("verify", tmp_path / "small.hvc").exit_code == 0
    assert one_error_line(run("encode", tmp_path / "small.png", "--lossless", "--target-bpp", "1"))


def test_a_part_of_a_picture(hvc, tmp_path, stream):
    out = tmp_path / "part.png"
    assert run("decode", hvc, "-o", out, "--region", "10,20,30,40").exit_code == 0
    assert Image.open(out).tobytes() == hvcodec.decode(stream).crop((10, 20, 40, 60)).tobytes()
    for wrong in ("10,20,30", "a,b,c,d", "0,0,0,0", "380,0,10,10", ""):
        assert one_error_line(run("decode", hvc, "-o", out, "--region", wrong))


def test_a_thumbnail(hvc, tmp_path, stream):
    out = tmp_path / "small.png"
    assert run("decode", hvc, "-o", out, "--reduce", "16").exit_code == 0
    assert Image.open(out).tobytes() == hvcodec.decode(stream, reduce=16).tobytes()
    assert one_error_line(run("decode", hvc, "-o", out, "--reduce", "5"))


def test_a_download_that_broke_off(hvc, tmp_path, stream):
    points = hvcodec.info(stream)["cut_points"]
    hvc.write_bytes(stream[: points[3] + 7])
    out = tmp_path / "out.png"
    assert one_error_line(run("decode", hvc, "-o", out))
    result = run("decode", hvc, "-o", out, "--partial")
    assert result.exit_code == 0 and "4 of 7 layers" in result.stderr
    assert Image.open(out).tobytes() == hvcodec.decode(stream[: points[3]]).tobytes()


def test_a_limit_on_pixels(hvc, tmp_path):
    out = tmp_path / "out.png"
    assert one_error_line(run("decode", hvc, "-o", out, "--max-pixels", "5000"))
    assert not out.exists()
    assert run("decode", hvc, "-o", out, "--max-pixels", "100000").exit_code == 0


def test_info_cut_and_verify_import_neither_torch_nor_numpy(hvc, tmp_path):
    script = """
import sys
from hvcodec.cli import main
main(sys.argv[1:], standalone_mode=False)
assert not {"torch", "numpy", "PIL"} & set(sys.modules), "too much imported"
"""
    for words in (
        ["info", hvc],
        ["cut", hvc, "--layers", "2", "-o", tmp_path / "x"],
        ["verify", hvc],
    ):
        subprocess.run([sys.executable, "-c", script, *map(str, words)], check=True)


def test_models_lists_the_default_model(stream):
    assert hvcodec.info(stream)["model"] in run("models").stdout
    assert hvcodec.info(stream)["model_name"] == modelfile.DEFAULT_NAME


def test_without_pytorch_all_works_but_effort_and_training(tmp_path):
    script = """
import sys
sys.modules["torch"] = None
import hvcodec
from click.testing import CliRunner
from PIL import Image
from hvcodec.cli import main
image = Image.effect_noise((70, 50), 40)
assert hvcodec.decode(hvcodec.encode(image, rate_weights="progressive")).size == (70, 50)
try:
    hvcodec.encode(image, effort=1)
except hvcodec.UsageError as error:
    print(error)
for words in (["train", ".", "--run", "x"], ["export", ".", "y"]):
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 1
    print(result.stderr, end="")
"""
    command = [sys.executable, "-c", script]
    found = subprocess.run(command, check=True, capture_output=True, text=True, cwd=tmp_path)
    lines = found.stdout.splitlines()
    assert len(lines) == 3 and all("needs PyTorch" in line for line in lines)
