"""The browser page decodes what Python decodes, in a real browser (docs/browser.md)."""

import hashlib
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from make_golden import FOLDER, INDEX
from PIL import Image

import hvcodec
from hvcodec import view

sync_api = pytest.importorskip("playwright.sync_api")

GOLDEN = json.loads(INDEX.read_text())
NPM = Path(__file__).parent.parent / "web" / "node_modules"
UNPACK = 'import browser from "@sparticuz/chromium"; console.log(await browser.executablePath())'
# As root Chromium wants no sandbox; the rest keeps it from looking for its maker.
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
ARGUMENTS += ["--disable-component-update", "--disable-sync", "--no-first-run"]
SECONDS = 1000  # of playwright's time


def _chromium() -> tuple[str, dict[str, str]]:
    """A Chromium and its environment: the machine's own, else that which `bin/web dev` took from npm."""
    if own := shutil.which("chromium"):
        return own, {}
    if not (NPM / "@sparticuz").is_dir():
        pytest.skip("no Chromium: neither the machine's nor npm's (bin/web dev)")
    place = NPM / ".browser"
    place.mkdir(exist_ok=True)
    # The variable makes it unpack the libraries that a bare machine lacks.
    unpacking = {"TMPDIR": str(place), "AWS_EXECUTION_ENV": "AWS_Lambda_nodejs22.x"}
    command = ["node", "--input-type=module", "-e", UNPACK]
    unpacked = subprocess.run(
        command, cwd=NPM, env=os.environ | unpacking, capture_output=True, text=True, check=True
    )
    libraries = {"LD_LIBRARY_PATH": str(place / "al2023" / "lib")}
    return unpacked.stdout.strip(), libraries


@pytest.fixture(scope="module")
def browser() -> Iterator:
    try:
        view.folder()
    except hvcodec.UsageError as error:
        pytest.skip(str(error))
    path, environment = _chromium()
    with sync_api.sync_playwright() as playwright:
        found = playwright.chromium.launch(
            executable_path=path, args=ARGUMENTS, env=os.environ | environment
        )
        yield found
        found.close()


@contextmanager
def viewed(browser, data: bytes) -> Iterator:
    """The page as `hvcodec view` shows it."""
    server, address = view.server("a file.hvc", data)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    page = browser.new_page()
    page.set_default_timeout(120 * SECONDS)
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(address)
    yield page
    page.close()
    server.shutdown()
    server.server_close()
    assert not errors


def wait_for(page, layers: int) -> None:
    page.wait_for_selector(f'body[data-shown="{layers}"]')


def shown(page) -> Image.Image:
    """The picture that is shown, as it was decoded."""
    width, height, pixels = page.evaluate(
        "() => { const { width, height, data } = shownPixels();"
        " return [width, height, Array.from(data)]; }"
    )
    return Image.frombytes("RGBA", (width, height), bytes(pixels))


@pytest.fixture(scope="module")
def page(browser) -> Iterator:
    data = (FOLDER / "photo4.hvc").read_bytes()
    with viewed(browser, data) as found:
        yield found


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_files_have_the_same_pixels(page, name):
    path = FOLDER / f"{name}.hvc"
    found = hvcodec.info(path.read_bytes())
    page.set_input_files("#file", path)
    wait_for(page, sum(layer["present"] for layer in found["layers"]))
    picture = shown(page)
    mode = ("L" if found["colour"] == "grey" else "RGB") + ("A" if "alpha" in found["metadata"] else "")
    picture = picture.convert(mode)
    content = f"{mode} {picture.width} {picture.height} ".encode() + picture.tobytes()
    assert hashlib.sha256(content).hexdigest() == GOLDEN[name]["pixels"]
