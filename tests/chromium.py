"""A headless Chromium for tests of the browser page, and the page in it."""

import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

from hvcodec import view

NPM = Path(__file__).parent.parent / "web" / "node_modules"
UNPACK = 'import browser from "@sparticuz/chromium"; console.log(await browser.executablePath())'
# As root Chromium wants no sandbox; the rest keeps it from looking for its maker.
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
ARGUMENTS += ["--disable-component-update", "--disable-sync", "--no-first-run"]
TIMEOUT = 120_000  # ms


def find() -> tuple[str, dict[str, str]] | None:
    """Chromium and its environment: the machine's own, else that which `bin/web dev` took from npm."""
    if own := shutil.which("chromium"):
        return own, {}
    if not (NPM / "@sparticuz").is_dir():
        return None
    place = NPM / ".browser"
    place.mkdir(exist_ok=True)
    # The second makes it unpack the libraries that a bare machine lacks.
    unpacking = {"TMPDIR": str(place), "AWS_EXECUTION_ENV": "AWS_Lambda_nodejs22.x"}
    unpacked = subprocess.run(
        ["node", "--input-type=module", "-e", UNPACK],
        cwd=NPM,
        env=os.environ | unpacking,
        capture_output=True,
        text=True,
        check=True,
    )
    return unpacked.stdout.strip(), {"LD_LIBRARY_PATH": str(place / "al2023" / "lib")}


@contextmanager
def launched(found: tuple[str, dict[str, str]]) -> Iterator[Browser]:
    path, environment = found
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path, args=ARGUMENTS, env=os.environ | environment
        )
        yield browser
        browser.close()


@contextmanager
def viewed(browser: Browser, data: bytes | None = None) -> Iterator[Page]:
    """The page as `hvcodec view` shows a file, or without one; errors in it are errors here."""
    server, address = view.server("a file.hvc", data or b"")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    page = browser.new_page()
    page.set_default_timeout(TIMEOUT)
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(address if data else address.partition("?")[0])
    yield page
    page.close()
    server.shutdown()
    server.server_close()
    assert not errors


def wait_for(page: Page, shown: str) -> None:
    """Until a cut, by its layers, is shown, or `preview N`."""
    page.wait_for_selector(f'body[data-shown="{shown}"]')
