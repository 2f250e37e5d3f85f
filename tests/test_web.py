"""The browser page decodes what Python decodes, in a real browser (docs/browser.md)."""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from make_golden import FOLDER, INDEX
from PIL import Image

import hvcodec
from hvcodec import view
from hvcodec.ladder import NAMES

pytest.importorskip("playwright")
import chromium

GOLDEN = json.loads(INDEX.read_text())


def golden(name: str) -> bytes:
    return (FOLDER / f"{name}.hvc").read_bytes()


@pytest.fixture(scope="module")
def browser() -> Iterator:
    try:
        view.folder()
    except hvcodec.UsageError as error:
        pytest.skip(str(error))
    if (found := chromium.find()) is None:
        pytest.skip("no Chromium: neither the machine's nor npm's (bin/web dev)")
    with chromium.launched(found) as opened:
        yield opened


@pytest.fixture(scope="module")
def page(browser) -> Iterator:
    """One page for many files: the first of them takes longer."""
    with chromium.viewed(browser, golden("one-pixel")) as found:
        yield found


def open_file(page, tmp_path, data: bytes) -> None:
    path = tmp_path / "file.hvc"
    path.write_bytes(data)
    page.set_input_files("#file", path)


PIXELS = """() => new Promise((resolve) => {
  const { width, height, data } = shownPixels();
  const reader = new FileReader();
  reader.onload = () => resolve([width, height, reader.result.split(",")[1]]);
  reader.readAsDataURL(new Blob([data]));
})"""


def shown(page) -> Image.Image:
    """The picture that is shown, as it was decoded; RGBA."""
    width, height, pixels = page.evaluate(PIXELS)
    return Image.frombytes("RGBA", (width, height), base64.b64decode(pixels))


def equal(picture: Image.Image, other: Image.Image) -> bool:
    return (np.asarray(picture) == np.asarray(other.convert("RGBA"))).all()


def message(page) -> str:
    page.wait_for_function("() => !['', 'reading…'].includes(message.textContent)")
    return page.text_content("#message")


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_files_have_the_same_pixels(page, name):
    found = hvcodec.info(golden(name))
    page.set_input_files("#file", FOLDER / f"{name}.hvc")
    chromium.wait_for(page, str(sum(layer["present"] for layer in found["layers"])))
    picture = shown(page)
    mode = ("L" if found["colour"] == "grey" else "RGB") + ("A" if "alpha" in found["metadata"] else "")
    picture = picture.convert(mode)
    content = f"{mode} {picture.width} {picture.height} ".encode() + picture.tobytes()
    assert hashlib.sha256(content).hexdigest() == GOLDEN[name]["pixels"]


def test_every_cut_can_be_looked_at(page, tmp_path):
    data = golden("photo5-progressive")
    found = hvcodec.info(data)
    open_file(page, tmp_path, data)
    chromium.wait_for(page, "15")
    for layers in (2, 7, 8, 12):
        page.evaluate(f"() => {{ cut.value = {layers}; cut.dispatchEvent(new Event('input')); }}")
        chromium.wait_for(page, str(layers))
        size = found["cut_points"][layers - 1]
        numbers = page.text_content("#numbers")
        assert f"{size:,} bytes" in numbers
        assert f"{8 * size / (found['width'] * found['height']):.3f} bpp" in numbers
        assert equal(shown(page), hvcodec.decode(data, layers=layers))


def test_the_bar_has_the_layers_shares(page, tmp_path):
    data = golden("photo5")
    open_file(page, tmp_path, data)
    chromium.wait_for(page, "7")
    bar = page.locator("#shares button")
    titles = [bar.nth(k).get_attribute("title") for k in range(7)]
    assert [title.partition(":")[0] for title in titles] == list(NAMES)
    widths = [bar.nth(k).bounding_box()["width"] for k in range(7)]
    lengths = [layer["length"] for layer in hvcodec.info(data)["layers"]]
    total = sum(lengths)
    assert np.allclose(np.divide(widths, sum(widths)), np.divide(lengths, total), atol=0.01)
    bar.nth(3).click()
    chromium.wait_for(page, "4")
    assert bar.nth(4).get_attribute("class") == "beyond"


def test_an_original_is_compared(page, tmp_path):
    photo = np.random.default_rng(5).integers(0, 256, (20, 30, 3), np.uint8)
    Image.fromarray(photo).save(tmp_path / "original.png")
    open_file(page, tmp_path, hvcodec.encode(Image.fromarray(photo), 20, lossless=True))
    chromium.wait_for(page, "8")
    page.set_input_files("#original", tmp_path / "original.png")
    page.wait_for_function("() => numbers.textContent.includes('exactly the original')")
    page.locator("#shares button").nth(6).click()
    chromium.wait_for(page, "7")
    error = (np.asarray(shown(page))[..., :3].astype(float) - photo) ** 2
    assert f", {10 * np.log10(255**2 / error.mean()):.2f} dB" in page.text_content("#numbers")


@contextmanager
def slow(data: bytes, stops: list[int]) -> Iterator:
    """An address that stops at some bytes until it is told to go on."""
    go_on = threading.Semaphore(0)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Access-Control-Allow-Origin", "*")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            for start, stop in zip([0, *stops], [*stops, len(data)]):
                self.wfile.write(data[start:stop])
                self.wfile.flush()
                if stop < len(data):
                    assert go_on.acquire(timeout=chromium.TIMEOUT / 1000)

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/slow.hvc", go_on
    server.shutdown()
    server.server_close()


def test_a_download_is_painted_as_it_comes(page):
    data = golden("photo5")
    cuts = hvcodec.info(data)["cut_points"]
    with slow(data, [cuts[0], cuts[3] + 1]) as (address, go_on):
        page.fill("#address input", address)
        page.press("#address input", "Enter")
        chromium.wait_for(page, "1")
        assert equal(shown(page), hvcodec.decode(data, layers=1))
        go_on.release()
        chromium.wait_for(page, "4")
        assert equal(shown(page), hvcodec.decode(data, layers=4))
        assert f"{cuts[3] + 1} bytes are here, 4 of 7 layers" in page.text_content("#numbers")
        go_on.release()
        chromium.wait_for(page, "7")
        assert equal(shown(page), hvcodec.decode(data))


def test_a_dropped_file_is_opened(page, tmp_path):
    page.evaluate(
        """(bytes) => {
          const transfer = new DataTransfer();
          transfer.items.add(new File([new Uint8Array(bytes)], "dropped.hvc"));
          document.body.dispatchEvent(new DragEvent("drop", { dataTransfer: transfer }));
        }""",
        list(golden("coarse")),
    )
    chromium.wait_for(page, "7")
    assert page.title().startswith("dropped.hvc")
    assert equal(shown(page), hvcodec.decode(golden("coarse")))


def test_damage_is_said_in_a_line(page, tmp_path):
    data = golden("photo5")
    cuts = hvcodec.info(data)["cut_points"]
    flipped = bytearray(data)
    flipped[cuts[2] + 3] ^= 1
    for bad, said in (
        (b"not a picture", "not a .hvc file"),
        (data[:20], "the file ends inside its header"),
        (bytes([*data[:25], data[25] ^ 1, *data[26:]]), "the header is damaged (its check fails)"),
        (bytes(flipped), "layer 4 is damaged (its check fails)"),
        (data + b"x", "the file goes on after its last layer"),
    ):
        open_file(page, tmp_path, bad)
        page.wait_for_function("(said) => message.textContent === said", arg=said)


def test_a_broken_off_file_shows_what_is_whole(page, tmp_path):
    data = golden("photo5")
    open_file(page, tmp_path, data[:-5])
    chromium.wait_for(page, "6")
    assert message(page) == "the file ends inside layer 7; what is whole of it is shown"
    assert equal(shown(page), hvcodec.decode(data, layers=6))


def test_a_file_of_another_model_names_it(page, tmp_path):
    file = hvcodec.container.read(golden("one-pixel"))
    file.header.model_id = "0123456789ab"
    words = [file.segment(layer, 0) for layer in range(file.layers)]
    open_file(page, tmp_path, hvcodec.container.write(file.header, words))
    assert "model 0123456789ab, which is not part of this page" in message(page)


def test_a_plain_server_will_do(browser):
    """Without the headers that threads need; and without a file the page shows its example."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(view.folder())))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    page = browser.new_page()
    page.set_default_timeout(chromium.TIMEOUT)
    page.goto(f"http://127.0.0.1:{server.server_address[1]}/")
    chromium.wait_for(page, "15")
    assert not page.evaluate("crossOriginIsolated")
    assert equal(shown(page), hvcodec.decode((view.folder() / "example.hvc").read_bytes()))
    page.close()
    server.shutdown()
    server.server_close()


@pytest.mark.slow
def test_a_large_picture_is_made_in_windows(page, tmp_path, photo):
    data = hvcodec.encode(photo.resize((1088, 1000)), 30)
    open_file(page, tmp_path, data)
    chromium.wait_for(page, "7")
    assert equal(shown(page), hvcodec.decode(data))


def test_the_page_is_light(browser):
    folder = view.folder()
    for model in (folder / "models").iterdir():
        others = [p for p in folder.rglob("*") if folder / "models" not in p.parents]
        sizes = [p.stat().st_size for p in [*others, *model.iterdir()] if p.is_file()]
        assert sum(sizes) < 15e6
