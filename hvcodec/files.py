"""Files in and out for the command line: folders, pipes, URLs, and writing that leaves no half files.

A path is a `pathlib.Path`, or for a URL (`s3://bucket/photos`, all that fsspec knows) a `UPath`, which
does the same; types here say `Path` for both.
"""

import os
import stat
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath, PurePosixPath
from typing import Any

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


def path(text: str) -> Path:
    """What a name on the command line stands for.

    Raises:
        UsageError: a URL without what it takes to read it.
    """
    if "://" not in text:
        return Path(text)
    try:
        from upath import UPath
    except ImportError:
        raise UsageError("URLs need fsspec: pip install hvcodec[fleet]") from None
    try:
        found: Any = UPath(text)
        assert found.fs is not None  # imports what the store needs
    except (ImportError, ValueError) as error:
        raise UsageError(f"{text}: {error}") from None
    return found


@contextmanager
def _trying(what: str, path: Path | None) -> Iterator[None]:
    """Turn the errors of a path's store into HvcError. Object stores have errors of all kinds."""
    try:
        yield
    except OSError as error:
        why = error.strerror or f"{type(error).__name__}: {error}"
        raise HvcError(f"cannot {what}: {why}") from None
    except Exception as error:
        if isinstance(error, HvcError) or path is None or isinstance(path, Path):
            raise
        raise HvcError(f"cannot {what}: {' '.join(str(error).split())}") from None


def label(path: Path | None) -> str:
    """A file as messages call it."""
    return PIPE if path is None else str(path)


def exists(path: Path) -> bool:
    """Whether there is something of this name. Raises HvcError if its store does not say."""
    with _trying(f"look for {label(path)}", path):
        return path.exists()


def read(path: Path | None) -> bytes:
    """A whole file, or standard input. Raises HvcError if it cannot be read."""
    with _trying("read it", path):
        if path is not None:
            return path.read_bytes()
        if sys.stdin is None:
            raise HvcError("standard input is closed")
        return sys.stdin.buffer.read()


def write(path: Path | None, data: bytes) -> None:
    """Write a whole file or nothing: to a temporary file beside it, then renamed; or as its store does.

    Links are followed; pipes and devices are written to as they are.

    Raises:
        HvcError: it cannot be written; an older file of that name is then untouched.
    """
    with _trying(f"write {label(path)}", path):
        if path is None:
            if sys.stdout is None:
                raise HvcError("standard output is closed")
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
        elif isinstance(path, Path):
            _write_file(path, data)
        else:
            _write_object(path, data)


def _write_file(path: Path, data: bytes) -> None:
    if path.exists() and not stat.S_ISREG(path.stat().st_mode):
        path.write_bytes(data)
        return
    path = path.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, unfinished = tempfile.mkstemp(dir=path.parent, prefix=".hvcodec-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.chmod(unfinished, _mode(path))
        os.replace(unfinished, path)
    except BaseException:
        os.unlink(unfinished)
        raise


def _mode(path: Path) -> int:
    """Permissions of what is written there: those of the file that it replaces, or the usual ones."""
    if path.exists():
        return stat.S_IMODE(path.stat().st_mode)
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


def _write_object(path: Any, data: bytes) -> None:
    from upath.implementations.cloud import CloudPath

    # Object stores put an object as a whole; stores of files move it to its name when all is written.
    try:
        with path.fs.transaction:
            path.fs.pipe_file(path.path, data)
    except FileNotFoundError:
        if isinstance(path, CloudPath):  # no folder is missing, but a bucket, and nobody asked for one
            raise
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.fs.transaction:
            path.fs.pipe_file(path.path, data)


def find(inputs: Iterable[str], suffixes: Iterable[str]) -> list[tuple[Path | None, Path]]:
    """The files that arguments stand for, and each one's path relative to the argument.

    A folder stands for the files in it, at any depth, that end in one of `suffixes`; `-` for a pipe.

    Raises:
        UsageError: an empty argument, or no files at all.
    """
    found: list[tuple[Path | None, Path]] = []
    for text in inputs:
        if not text:
            raise UsageError("an argument is empty")
        given = path(text)
        if text == PIPE:
            found.append((None, Path("stdin")))
        elif is_folder(given):
            with _trying(f"list {text}", given):
                inside = sorted(_inside(given, suffixes))
            found += [(given / str(p), Path(p)) for p in inside]
        else:
            found.append((given, Path(given.name)))
    if not found:
        raise UsageError("no files found")
    return found


def is_folder(path: Path) -> bool:
    """Whether this is a folder. Raises HvcError if its store does not say."""
    with _trying(f"look for {label(path)}", path):
        return path.is_dir()


def _inside(folder: Any, suffixes: Iterable[str]) -> list[PurePath]:
    """Files in a folder at any depth that end in one of `suffixes`, relative to it."""
    if isinstance(folder, Path):
        wanted = (p for p in folder.rglob("*") if p.suffix.lower() in suffixes)
        return [p.relative_to(folder) for p in wanted if p.is_file()]
    # One listing, of files alone; to ask for the kind of each would be a request each.
    listed = map(PurePosixPath, folder.fs.find(folder.path))
    return [p.relative_to(folder.path) for p in listed if p.suffix.lower() in suffixes]


def plan(inputs: Iterable[str], output: str | None, suffixes: Iterable[str], suffix: str) -> list[Job]:
    """Which files to read (see `find`) and where to write.

    Results lie beside their sources with another suffix, or under `output`: a folder where there are
    several, or if it is one already or ends in a slash; else the file itself.

    Raises:
        UsageError: nothing to do, two results would have one name, or one would replace a source.
    """
    inputs = list(inputs)
    found = find(inputs, suffixes)
    several = len(found) > 1 or any(text != PIPE and is_folder(path(text)) for text in inputs)
    if output == "" or (output == PIPE and several):
        raise UsageError("several results need a folder, one a file or a folder")
    place = path(output) if output else Path()
    into = several or (output or "").endswith(("/", os.sep)) or (output and is_folder(place))
    jobs = []
    for source, relative in found:
        if output is None:
            jobs.append(Job(source, source.with_suffix(suffix) if source else None))
        elif output == PIPE:
            jobs.append(Job(source, None, named=True))
        elif into:
            jobs.append(Job(source, place / relative.with_suffix(suffix).as_posix()))
        else:
            jobs.append(Job(source, place, named=True))
    sources = {_identity(job.source) for job in jobs if job.source}
    seen: dict[Path, Job] = {}
    for job in jobs:
        if job.target is None:
            continue
        target = _identity(job.target)
        if target in sources:
            raise UsageError(f"{job.target} would be replaced by its own result")
        if target in seen:
            both = f"{label(seen[target].source)} and {label(job.source)}"
            raise UsageError(f"{both} would both become {job.target}")
        seen[target] = job
    return jobs


def _identity(path: Path) -> Path:
    """What two names of one file share. Links and dots mean nothing in URLs."""
    return path.resolve() if isinstance(path, Path) else path
