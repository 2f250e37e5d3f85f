"""Files in and out for the command line: folders, pipes, and writing that leaves nothing half done."""

import os
import stat
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from .errors import HvcError, UsageError

PIPE = "-"
PICTURES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp"})


@dataclass(frozen=True)
class Job:
    """One file to read and where its result goes; None is standard input or output.

    Attributes:
        named: whether the user named the target itself; else its name follows from the source's.
    """

    source: Path | None
    target: Path | None
    named: bool = False


def label(path: Path | None) -> str:
    """A file as messages call it."""
    return PIPE if path is None else str(path)


def read(path: Path | None) -> bytes:
    """A whole file, or standard input. Raises HvcError if it cannot be read."""
    try:
        if path is not None:
            return path.read_bytes()
        if sys.stdin is None:
            raise HvcError("standard input is closed")
        return sys.stdin.buffer.read()
    except OSError as error:
        raise HvcError(f"cannot read it: {error.strerror}") from None


def write(path: Path | None, data: bytes) -> None:
    """Write a whole file or nothing: to a temporary file beside it, then renamed.

    Links are followed; pipes and devices are written to as they are.

    Raises:
        HvcError: it cannot be written; an older file of that name is then untouched.
    """
    try:
        if path is None:
            if sys.stdout is None:
                raise HvcError("standard output is closed")
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
            return
        path = path.resolve()
        if path.exists() and not stat.S_ISREG(path.stat().st_mode):
            path.write_bytes(data)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, unfinished = tempfile.mkstemp(dir=path.parent, prefix=".hvcodec-")
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
        raise HvcError(f"cannot write {label(path)}: {error.strerror}") from None


def find(inputs: Iterable[str], suffixes: Iterable[str]) -> list[tuple[Path | None, Path]]:
    """The files that arguments stand for, and each one's path relative to the argument.

    A folder stands for the files in it, at any depth, that end in one of `suffixes`; `-` for a pipe.

    Raises:
        UsageError: an empty argument, or no files at all.
    """
    found: list[tuple[Path | None, Path]] = []
    for text in inputs:
        path = Path(text)
        if not text:
            raise UsageError("an argument is empty")
        if text == PIPE:
            found.append((None, Path("stdin")))
        elif path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in suffixes)
            found += [(p, p.relative_to(path)) for p in inside if p.is_file()]
        else:
            found.append((path, Path(path.name)))
    if not found:
        raise UsageError("no files found")
    return found


def plan(inputs: Iterable[str], output: str | None, suffixes: Iterable[str], suffix: str) -> list[Job]:
    """Which files to read (see `find`) and where to write.

    Results lie beside their sources with another suffix, or under `output`: a folder where there are
    several, or if it is one already or ends in a slash; else the file itself.

    Raises:
        UsageError: nothing to do, two results would have one name, or one would replace a source.
    """
    inputs = list(inputs)
    found = find(inputs, suffixes)
    several = len(found) > 1 or any(text != PIPE and Path(text).is_dir() for text in inputs)
    if output == "" or (output == PIPE and several):
        raise UsageError("several results need a folder, one a file or a folder")
    jobs = []
    for source, relative in found:
        if output is None:
            jobs.append(Job(source, source.with_suffix(suffix) if source else None))
        elif output == PIPE:
            jobs.append(Job(source, None, named=True))
        elif several or output.endswith(("/", os.sep)) or Path(output).is_dir():
            jobs.append(Job(source, Path(output) / relative.with_suffix(suffix)))
        else:
            jobs.append(Job(source, Path(output), named=True))
    sources = {job.source.resolve() for job in jobs if job.source}
    seen: dict[Path, Job] = {}
    for job in jobs:
        if job.target is None:
            continue
        target = job.target.resolve()
        if target in sources:
            raise UsageError(f"{job.target} would be replaced by its own result")
        if target in seen:
            both = f"{label(seen[target].source)} and {label(job.source)}"
            raise UsageError(f"{both} would both become {job.target}")
        seen[target] = job
    return jobs
