"""Many files: object stores, restarts that make nothing twice, failures beside successes, Ray."""

import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import PICTURES, gradient
from PIL import Image
from upath import UPath

import hvcodec
from hvcodec import files, fleet, modelfile
from hvcodec.cli import main


def run(*args):
    return CliRunner().invoke(main, [str(a) for a in args])


def totals(*args):
    return json.loads(run(*args, "--json").stdout)


@pytest.fixture
def folder(tmp_path):
    """Three small pictures, one of them further down."""
    folder = tmp_path / "in"
    (folder / "deep").mkdir(parents=True)
    for n, name in enumerate(("a.png", "b.png", "deep/c.png")):
        Image.fromarray(gradient(40 + n, 30)).save(folder / name)
    return folder


def test_object_stores(folder, tmp_path):
    store = UPath("memory://fleet-test")
    for path in folder.rglob("*.png"):
        files.write(store / "in" / path.relative_to(folder).as_posix(), path.read_bytes())
    files.write(store / "in" / "notes.txt", b"no picture")
    assert run("encode", store / "in", "-o", store / "out", "-q", "70").exit_code == 0
    made = {str(p) for p in store.rglob("*.hvc")}
    assert made == {f"memory://fleet-test/out/{n}.hvc" for n in ("a", "b", "deep/c")}
    data = (store / "out" / "deep" / "c.hvc").read_bytes()
    assert data == hvcodec.encode(gradient(42, 30), quality=70)
    assert run("verify", store / "out").exit_code == 0
    assert "42x30" in run("info", store / "out" / "deep" / "c.hvc").stdout
    assert run("decode", store / "out", "-o", tmp_path / "back").exit_code == 0
    back = Image.open(tmp_path / "back" / "deep" / "c.png")
    assert np.array_equal(back, hvcodec.decode(data))
    # Beside its source, where the original is in the way.
    assert run("decode", store / "out" / "a.hvc", "-o", store / "in" / "").exit_code == 0
    assert (store / "in" / "a.decoded.png").exists()
    assert (store / "in" / "a.png").read_bytes() == (folder / "a.png").read_bytes()


def test_a_url_of_files_is_written_as_a_whole(tmp_path, monkeypatch):
    target = UPath((tmp_path / "new" / "a.hvc").as_uri())
    files.write(target, b"first")
    assert target.read_bytes() == b"first"

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shutil.move", fail)
    with pytest.raises(hvcodec.HvcError, match="No space left"):
        files.write(target, b"second")
    assert target.read_bytes() == b"first"


@pytest.mark.parametrize(
    "words",
    [
        ("encode", "memory://fleet-test/nothing.png"),
        ("encode", "nowhere://bucket/a.png"),
        ("encode", "photo.png", "-o", "nowhere://bucket/"),
        ("decode", "memory://fleet-test/nothing"),
        ("encode", "-", "--journal", "j"),
        ("encode", "photo.png", "-o", "-", "--json"),
    ],
    ids=" ".join,
)
def test_wrong_places_are_one_line(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photo.png").write_bytes((PICTURES / "parrots.png").read_bytes())
    result = run(*words)
    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == 1 and result.stderr.startswith("hvcodec: ")
    assert os.listdir(tmp_path) == ["photo.png"]


def stamps(folder):
    """Which file lies under each name: a new one has another number."""
    return {p.name: (p.stat().st_ino, p.stat().st_mtime_ns) for p in folder.rglob("*.hvc")}


def test_only_what_is_not_done_is_done(folder, tmp_path):
    out, journal = tmp_path / "out", tmp_path / "journal"
    words = ("encode", folder, "-o", out, "--journal", journal)
    found = totals(*words)
    pixels = (40 + 41 + 42) * 30
    size = sum(p.stat().st_size for p in out.rglob("*.hvc"))
    assert (found["files"], found["made"], found["kept"], found["failed"]) == (3, 3, 0, 0)
    assert (found["bytes"], found["megapixels"], found["bpp"]) == (
        size,
        pixels / 1e6,
        8 * size / pixels,
    )
    before = stamps(out)

    def changed(*words):
        nonlocal before
        result = run(*words)
        assert result.exit_code == 0
        after = stamps(out)
        names = {name for name in after if after[name] != before[name]}
        before = after
        return names

    assert changed(*words) == set()
    os.utime(folder / "a.png")
    (out / "notes.txt").write_text("of no meaning")
    assert changed(*words) == set()
    Image.fromarray(gradient(40, 31)).save(folder / "a.png")
    assert changed(*words) == {"a.hvc"}
    assert hvcodec.info((out / "a.hvc").read_bytes())["height"] == 31
    (out / "b.hvc").write_bytes((out / "b.hvc").read_bytes()[:-1])
    assert changed(*words) == {"b.hvc"}
    (out / "b.hvc").unlink()
    assert run(*words).exit_code == 0 and (out / "b.hvc").exists()
    before = stamps(out)
    assert changed(*words, "-q", "40") == {"a.hvc", "b.hvc", "c.hvc"}
    assert changed(*words, "-q", "40") == set()
    # The same network under another name; then another network.
    assert changed(*words, "-q", "40", "--model", modelfile.DEFAULT_NAME) == set()
    assert changed(*words, "-q", "40", "--model", "photo3") == {"a.hvc", "b.hvc", "c.hvc"}
    assert "kept" in run(*words, "-q", "40", "--model", "photo3").stderr


def test_names_that_are_not_utf8_are_remembered_too(folder, tmp_path):
    try:
        (folder / "a.png").rename(os.fsdecode(os.fsencode(folder) + b"/\xe9.png"))
    except OSError:
        pytest.skip("no such names here")
    words = ("encode", folder, "-o", tmp_path / "out", "--journal", tmp_path / "journal")
    assert totals(*words)["made"] == 3
    assert totals(*words)["kept"] == 3


def test_decoding_again_without_a_journal_leaves_one_result(folder):
    assert run("encode", folder).exit_code == 0
    for path in folder.rglob("*.png"):
        path.unlink()
    for _ in range(2):
        assert run("decode", folder).exit_code == 0
    assert {p.name for p in folder.rglob("*.png")} == {"a.png", "b.png", "c.png"}


def test_decoding_again_replaces_its_own_results_only(folder, tmp_path):
    assert run("encode", folder).exit_code == 0  # beside the originals
    words = ("decode", folder, "--journal", tmp_path / "journal")
    originals = {p: p.read_bytes() for p in folder.rglob("*.png")}
    for reduce in ("1", "8"):
        assert totals(*words, "--reduce", reduce)["made"] == 3
        assert totals(*words, "--reduce", reduce)["kept"] == 3
    assert {p: p.read_bytes() for p in originals} == originals
    others = {p.name for p in folder.rglob("*.png")} - {p.name for p in originals}
    assert others == {"a.decoded.png", "b.decoded.png", "c.decoded.png"}
    assert Image.open(folder / "a.decoded.png").size == (5, 4)


def test_failures_beside_successes(folder, tmp_path):
    (folder / "bad.png").write_bytes(b"no picture")
    whole = (folder / "a.png").read_bytes()
    (folder / "half.png").write_bytes(whole[: len(whole) // 2])
    words = ("encode", folder, "-o", tmp_path / "out", "--journal", tmp_path / "journal")
    result = run(*words, "--json")
    assert result.exit_code == 1
    found = json.loads(result.stdout)
    assert (found["files"], found["made"], found["failed"]) == (5, 3, 2)
    assert [line.split(": ")[1] for line in found["failures"]] == [
        str(folder / "bad.png"),
        str(folder / "half.png"),
    ]
    table = run(*words)
    assert table.exit_code == 1
    names, values = table.stderr.splitlines()[-2:]
    row = dict(zip(names.split(), values.split()))
    assert (row["files"], row["made"], row["kept"], row["failed"]) == ("5", "0", "3", "2")
    (folder / "bad.png").write_bytes(whole)
    (folder / "half.png").unlink()
    assert totals(*words)["made"] == 1


def test_a_file_that_is_no_journal_is_left_alone(folder, tmp_path):
    before = (folder / "b.png").read_bytes()
    result = run("encode", folder / "a.png", "--journal", folder / "b.png")
    assert result.exit_code == 1 and "cannot be the journal" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert (folder / "b.png").read_bytes() == before
    assert not (folder / "a.hvc").exists()


def test_what_was_made_is_known_after_a_sudden_end(folder, tmp_path):
    script = """
import os, sys
from hvcodec import cli, files
write, written = files.write, []
def dies_at_the_second(*args):
    if written:
        os._exit(9)
    written.append(write(*args))
files.write = dies_at_the_second
cli.main(sys.argv[1:])
"""
    words = ["encode", str(folder), "-o", str(tmp_path / "out"), "--journal", str(tmp_path / "journal")]
    assert subprocess.run([sys.executable, "-c", script, *words]).returncode == 9
    found = totals(*words)
    assert (found["made"], found["kept"]) == (2, 1)


def test_urls_and_ray_are_not_needed_for_files(folder):
    script = """
import sys
for name in ("upath", "fsspec", "ray"):
    sys.modules[name] = None
from hvcodec.cli import main
from click.testing import CliRunner
assert CliRunner().invoke(main, ["encode", sys.argv[1]]).exit_code == 0
for words in (["memory://a.png"], [sys.argv[1], "--ray"]):
    result = CliRunner().invoke(main, ["encode", *words])
    assert result.exit_code == 1, result
    print(result.stderr, end="")
"""
    command = [sys.executable, "-c", script, str(folder)]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    assert [line.split(":")[-1] for line in lines] == [" pip install hvcodec[fleet]"] * 2


@pytest.fixture(scope="module")
def ray():
    """Ray with two workers on this machine."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray = pytest.importorskip("ray")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield ray
    ray.shutdown()


def test_ray_gives_the_same_files_and_restarts(ray, folder, tmp_path):
    (folder / "bad.png").write_bytes(b"no picture")
    assert run("encode", folder, "-o", tmp_path / "plain").exit_code == 1
    words = ("encode", folder, "-o", tmp_path / "out", "--ray", "--journal", tmp_path / "journal")
    result = run(*words)
    assert result.exit_code == 1
    assert "bad.png: not a picture" in result.stderr
    for path in (tmp_path / "plain").rglob("*.hvc"):
        assert (
            tmp_path / "out" / path.relative_to(tmp_path / "plain")
        ).read_bytes() == path.read_bytes()
    found = totals(*words)
    assert (found["made"], found["kept"], found["failed"]) == (0, 3, 1)
    assert totals("decode", tmp_path / "out", "--ray")["made"] == 3


def test_ray_works_on_two_files_at_a_time_with_a_core_each(ray, tmp_path):
    for name in ("left", "right"):
        (tmp_path / name).with_suffix(".png").write_bytes(b"content")

    def work(job, content):
        """Waits for the other one."""
        from hvcodec import parallel

        job.source.with_suffix(".here").touch()
        end = time.monotonic() + 60
        while len(list(job.source.parent.glob("*.here"))) < 2:
            assert time.monotonic() < end
            time.sleep(0.02)
        return fleet.Made(f"{parallel.WORKERS} thread", 1, 1, job.target, b"result")

    jobs = files.plan([str(tmp_path)], None, {".png"}, ".hvc")
    outcomes = list(fleet.run(jobs, work, "", ray=True))
    said = {f"{tmp_path / name}.hvc: 1 thread" for name in ("left", "right")}
    assert {o.said for o in outcomes} == said


def test_ray_loses_no_file_but_the_one_that_ends_its_worker(ray, tmp_path):
    for name in [*range(40), "deadly", "wrong"]:
        (tmp_path / f"{name}.png").write_bytes(b"content")

    def work(job, content):
        if job.source.name == "deadly.png":
            os._exit(1)
        if job.source.name == "wrong.png":
            raise LookupError("a mistake of ours")
        return fleet.Made("done", 1, 1, job.target, b"result")

    jobs = files.plan([str(tmp_path)], None, {".png"}, ".hvc")
    outcomes = list(fleet.run(jobs, work, "", ray=True))
    failed = {o.job.source.name: o.said for o in outcomes if o.failed}
    assert set(failed) == {"deadly.png", "wrong.png"}
    assert failed["wrong.png"].endswith("LookupError: a mistake of ours")
    assert len(list(tmp_path.glob("*.hvc"))) == sum(o.made for o in outcomes) == 40
