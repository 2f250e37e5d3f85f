"""What an installed hvcodec offers besides running: types, manual pages, completion."""

import os
import re
import subprocess
import sys
from pathlib import Path

import click_man.core

from hvcodec.cli import main

MAN = Path(__file__).parent.parent / "man"

SNIPPET = """
import hvcodec
from PIL import Image

data: bytes = hvcodec.encode(Image.open("photo.png"), quality=60)
picture: Image.Image = hvcodec.decode(data)
places: list[int] = hvcodec.info(data)["cut_points"]
hvcodec.decode(3)
hvcodec.encode(picture, qualty=60)
hvcodec.decod(data)
"""


def test_type_checkers_see_the_public_functions(tmp_path):
    (tmp_path / "user.py").write_text(SNIPPET)
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", tmp_path / "cache", "user.py"]
    said = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True).stdout
    errors = re.findall(r"^user.py:(\d+): error: .*\[(.*)\]$", said, re.MULTILINE)
    assert errors == [("8", "arg-type"), ("9", "call-arg"), ("10", "attr-defined")]


def test_manual_pages_say_what_help_says(tmp_path):
    click_man.core.write_man_pages("hvcodec", main, version="0", target_dir=str(tmp_path))

    def pages(folder):
        # The first line holds a date and a version.
        return {p.name: p.read_text().split("\n", 1)[1] for p in folder.glob("*.1")}

    assert pages(MAN) == pages(tmp_path), "bin/man writes them anew"


def test_shells_complete_commands():
    words = {"_HVCODEC_COMPLETE": "bash_complete", "COMP_WORDS": "hvcodec en", "COMP_CWORD": "1"}
    command = [Path(sys.executable).with_name("hvcodec")]
    said = subprocess.run(command, env=os.environ | words, capture_output=True, text=True).stdout
    assert said.split() == ["plain,encode"]
