"""`python -m hvcodec` is the `hvcodec` command."""

from .cli import main

main(prog_name="hvcodec")
