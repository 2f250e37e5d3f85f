"""`hvcodec view` serves the page and the file until it is told to end."""

import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from urllib.parse import unquote

import pytest
from click.testing import CliRunner
from make_golden import FOLDER

import hvcodec
from hvcodec import cli, view


@pytest.fixture
def built(tmp_path, monkeypatch):
    """A page that is built, or looks so."""
    (tmp_path / "vendor").mkdir()
    (tmp_path / "index.html").write_text("the page")
    monkeypatch.setattr(view, "_INSTALLED", tmp_path)


@pytest.fixture
def serving():
    servers = []

    def serve(name: str, data: bytes) -> str:
        server, address = view.server(name, data)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return address

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


def fetched(address: str, host: str | None = None) -> bytes:
    request = urllib.request.Request(address, headers={"Host": host} if host else {})
    with urllib.request.urlopen(request) as response:
        assert response.headers["Cross-Origin-Opener-Policy"] == "same-origin"
        return response.read()


def test_the_page_and_the_file_are_served(built, serving):
    address = serving("a file?.hvc", b"content")
    start, _, query = address.partition("/?file=")
    assert fetched(address) == b"the page"
    assert fetched(start + unquote(query)) == b"content"
    for missing in ("/shown/other.hvc", "/../pyproject.toml"):
        with pytest.raises(urllib.error.HTTPError, match="404"):
            fetched(start + missing)


def test_a_page_under_another_name_gets_nothing(built, serving):
    address = serving("x.hvc", b"content")
    with pytest.raises(urllib.error.HTTPError, match="403"):
        fetched(address, host="stranger.example")


def test_a_lost_connection_is_nothing_to_report(built, serving, capfd):
    address = serving("large.hvc", bytes(1 << 26))
    start, _, query = address.partition("/?file=")
    host = start.removeprefix("http://")
    with socket.create_connection((view.HOST, int(host.rpartition(":")[2]))) as connection:
        connection.sendall(f"GET {unquote(query)} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        connection.recv(1000)
        # To close it now is to reset it.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert fetched(start) == b"the page"
    assert capfd.readouterr().err == ""


def test_a_page_that_is_not_built_is_said_in_a_line(tmp_path, monkeypatch):
    monkeypatch.setattr(view, "_INSTALLED", tmp_path)
    found = CliRunner().invoke(cli.main, ["view", str(FOLDER / "plain.hvc")])
    assert found.exit_code == 1
    assert found.output.startswith("hvcodec: ") and found.output.count("\n") == 1
    assert "bin/web" in found.output


def test_what_is_no_file_is_not_shown(tmp_path):
    path = tmp_path / "x.hvc"
    path.write_bytes(b"not one")
    found = CliRunner().invoke(cli.main, ["view", str(path)])
    assert found.exit_code == 1
    assert found.output == f"hvcodec: {path}: not a .hvc file\n"


def test_the_command_ends_on_ctrl_c():
    try:
        view.folder()
    except hvcodec.UsageError as error:
        pytest.skip(str(error))
    command = [sys.executable, "-m", "hvcodec", "view", str(FOLDER / "plain.hvc")]
    settings = {"stderr": subprocess.PIPE, "text": True, "env": os.environ | {"BROWSER": "true"}}
    # A shell's background jobs ignore Ctrl-C, and so does what they start.
    settings["preexec_fn"] = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(command, **settings) as process:
        line = process.stderr.readline()
        address = re.match(r"http://127\.0\.0\.1:\d+/\?file=/shown/plain\.hvc", line)[0]
        assert fetched(address.replace("?file=/", "")) == (FOLDER / "plain.hvc").read_bytes()
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 0
        assert process.stderr.read() == ""
