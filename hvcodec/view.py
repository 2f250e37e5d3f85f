"""The browser page (`web/page`, docs/browser.md) and one file for it, served to this machine alone."""

import os
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote

from .errors import UsageError

_INSTALLED = Path(__file__).parent / "web"
_CHECKOUT = Path(__file__).parent.parent / "web" / "page"
HOST = "127.0.0.1"
SHOWN = "/shown/"  # where the file lies, under its name
HEADERS = {
    # A page gets threads only if it is cut off from others like this.
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cache-Control": "no-cache",  # the next hvcodec may have another page
}


def folder() -> Path:
    """The page's folder: inside the package, or beside it in a checkout.

    Raises:
        UsageError: the page is not built.
    """
    found = _INSTALLED if _INSTALLED.is_dir() else _CHECKOUT
    if not (found / "vendor").is_dir():
        raise UsageError("the browser page is not built: run bin/web in a copy of hvcodec's source")
    return found


class _Handler(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    extensions_map = SimpleHTTPRequestHandler.extensions_map | {
        ".js": "text/javascript",
        ".mjs": "text/javascript",
    }

    def __init__(self, *arguments: Any, files: dict[str, bytes], **options: Any) -> None:
        self._files = files
        super().__init__(*arguments, **options)

    def do_GET(self) -> None:
        # Other names may be those of a stranger's page that leads to this address.
        if self.headers.get("Host") != f"{HOST}:{self.connection.getsockname()[1]}":
            self.send_error(403)
        elif (content := self._files.get(self.path)) is not None:
            self.send_response(200)
            self.send_header("Content-Type", "application/octet-stream")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
        else:
            super().do_GET()

    def end_headers(self) -> None:
        for name, value in HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, *arguments: object) -> None:
        pass


class _Server(ThreadingHTTPServer):
    def handle_error(self, *arguments: Any) -> None:
        # Browsers drop connections when a page is closed.
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(*arguments)


def server(name: str, data: bytes) -> tuple[ThreadingHTTPServer, str]:
    """A server of the page on a free port, not yet serving, and the address that shows a file.

    Args:
        name: of the file, for its title.
        data: its bytes.

    Raises:
        UsageError: see `folder`.
    """
    path = SHOWN + quote(os.fsencode(name))
    handler = partial(_Handler, files={path: data}, directory=str(folder()))
    made = _Server((HOST, 0), handler)
    return made, f"http://{HOST}:{made.server_address[1]}/?file={quote(path)}"
