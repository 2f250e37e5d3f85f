"""Files in and out for the command line: folders, pipes, and writing that leaves nothing half done."""

import os
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from .errors import HvcError, UsageError

PIPE = Path("-")


@dataclass(frozen=True)
class Job:
    """One file to read and where its result goes; `-` is standard input or output."""

    source: Path
    target: Path


def read(path: Path) -> bytes:
    """A whole file, or standard input. Raises HvcError if it cannot be read."""
    try:
        return sys.stdin.buffer.read() if path == PIPE else path.read_bytes()
    except OSError as error:
        raise HvcError(f"cannot read it: {error.strerror}") from None


def write(path: Path, data: bytes) -> None:
    """Write a whole file or nothing: to a temporary file beside it, then renamed.

    Raises:
        HvcError: it cannot be written; an older file of that name is then untouched.
    """
    try:
        if path == PIPE:
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, unfinished = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            mask = os.umask(0)
            os.umask(mask)
            os.chmod(unfinished, 0o666 & ~mask)
            os.replace(unfinished, path)
        except BaseException:
            os.unlink(unfinished)
            raise
    except OSError as error:
        raise HvcError(f"cannot write {path}: {error.strerror}") from None


def plan(inputs: Iterable[Path], output: Path | None, suffixes: set[str], suffix: str) -> list[Job]:
    """Which files to read and where to write.

    A folder stands for the files in it (at any depth) that end in one of `suffixes`. Results lie
    beside their sources, or under `output`: a folder where there are several or it is one already.

    Raises:
        UsageError: nothing to do, or two results would have one name.
    """
    found: list[tuple[Path, Path]] = []  # source, and its path relative to what was named
    for path in inputs:
        if path != PIPE and path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in suffixes)
            found += [(p, p.relative_to(path)) for p in inside if p.is_file()]
        else:
            found.append((path, Path(path.name)))
    if not found:
        raise UsageError("no files found")
    several = len(found) > 1 or any(p != PIPE and p.is_dir() for p in inputs)
    if output == PIPE and several:
        raise UsageError("several results cannot go into one pipe")
    jobs = []
    for source, relative in found:
        if output is None:
            target = PIPE if source == PIPE else source.with_suffix(suffix)
        elif output != PIPE and (several or output.is_dir()):
            name = Path("stdin") if source == PIPE else relative
            target = output / name.with_suffix(suffix)
        else:
            target = output
        jobs.append(Job(source, target))
    seen: dict[Path, Path] = {}
    for job in jobs:
        if job.target in seen:
            raise UsageError(f"{seen[job.target]} and {job.source} would both become {job.target}")
        seen[job.target] = job.source
    return jobs
