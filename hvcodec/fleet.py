"""Many files: each read, worked on and written by itself, here or by Ray, and none twice.

The work on a file gets its content and gives what is to be written; it knows neither where it runs nor
what ran before. What fails is reported and stops nothing else. A journal says of every result of which
content and with which options it is.
"""

import hashlib
import logging
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, dataclass, fields, replace
from pathlib import Path
from typing import Any, TypedDict

from . import files
from .errors import HvcError, UsageError, reason
from .files import Job

GROUP = 32  # files in a task of Ray, at most: each costs the driver 2 ms
GROUPS_PER_CORE = 8  # at least, so that all cores end at about the same time
TASKS_PER_CORE = 3  # given to Ray at a time; a cluster that can grow does so for those that wait


@dataclass(frozen=True)
class Made:
    """What the work on a file gives.

    Attributes:
        said: one line for people, without the file's name.
        pixels: of the picture.
        size: bytes of the `.hvc` file.
        target: where the result goes; None is standard output.
        data: the result; None if nothing is to be written.
    """

    said: str
    pixels: int
    size: int
    target: Path | None = None
    data: bytes | None = None


Work = Callable[[Job, bytes], Made]


@dataclass(frozen=True)
class Record:
    """What a journal says of a target: where the result went (`written`), the SHA-256 of what it is
    made of and of itself, and all options that it depends on."""

    target: str
    written: str
    content: str
    result: str
    options: str


@dataclass(frozen=True)
class Outcome:
    """What became of a job.

    Attributes:
        job: the job.
        said: one line for people.
        made: whether there is a new result; only that has numbers.
        failed: whether there is none.
        pixels, size: see `Made`.
        core_seconds: time of processors that it took, all threads together.
        record: for the journal, if there is one.
    """

    job: Job
    said: str
    made: bool = False
    failed: bool = False
    pixels: int = 0
    size: int = 0
    core_seconds: float = 0.0
    record: Record | None = None


class Journal:
    """What was made before, in a local SQLite file, which is made if it isn't there.

    Raises:
        UsageError: it cannot be used, or is something else.
    """

    def __init__(self, path: str) -> None:
        names = ", ".join(f.name for f in fields(Record))
        self._path = path
        self._base: Any = None
        # No waiting for the disk at each result, but sound after a loss of power too.
        self._do("PRAGMA journal_mode = WAL")
        self._do("PRAGMA synchronous = NORMAL")
        self._do(f"CREATE TABLE IF NOT EXISTS made ({names}, PRIMARY KEY (target))")
        self._do(f"SELECT {names} FROM made LIMIT 0")

    def find(self, job: Job) -> Record | None:
        """What is known of a job's target."""
        found = self._do("SELECT * FROM made WHERE target = ?", files.label(job.target))
        return Record(*found[0]) if found else None

    def add(self, record: Record) -> None:
        """Note a result, so that it is known whatever happens next."""
        self._do("INSERT OR REPLACE INTO made VALUES (?, ?, ?, ?, ?)", *astuple(record))

    def _do(self, command: str, *values: str) -> list[Any]:
        """Results of a command that is either done for good or not at all."""
        import sqlite3

        try:
            self._base = self._base or sqlite3.connect(self._path)
            with self._base:
                rows = self._base.execute(command, [*map(_stored, values)]).fetchall()
            return [[os.fsdecode(value) for value in row] for row in rows]
        except sqlite3.Error as error:
            raise UsageError(f"{self._path} cannot be the journal: {error}") from None


def _stored(text: str) -> str | bytes:
    """As SQLite can keep it, whose text is UTF-8: the name of a file may be anything."""
    try:
        text.encode()
        return text
    except UnicodeEncodeError:
        return os.fsencode(text)


@dataclass(frozen=True)
class Task:
    """Work that can be sent to another process, for one file after the other.

    Attributes:
        work: the work.
        options: what results depend on besides content, as the journal has it; None without one.
    """

    work: Work
    options: str | None = None

    def attempt(self, job: Job, earlier: Record | None = None) -> Outcome:
        """Do a job, unless it was done: of this content, with these options, and the result is there.

        Args:
            earlier: what the journal knows of it.
        """
        start = time.process_time()
        goal = job
        try:
            data = files.read(job.source)
            if earlier and _is_there(earlier):
                if (earlier.content, earlier.options) == (_digest(data), self.options):
                    return Outcome(job, f"{earlier.written}: was there")
                # A result of ours may be replaced, whatever its name came from.
                goal = replace(job, target=files.path(earlier.written), named=True)
            made = self.work(goal, data)
            if made.data is not None:
                files.write(made.target, made.data)
        except (HvcError, OSError, MemoryError, RuntimeError) as error:
            why = reason(error)
            if why is None or isinstance(error, BrokenPipeError):
                raise
            return failure(job, why)
        record = None
        if made.data is not None and self.options is not None:
            target, written = files.label(job.target), files.label(made.target)
            record = Record(target, written, _digest(data), _digest(made.data), self.options)
        where = files.label(job.source if made.data is None else made.target)
        took = time.process_time() - start
        return Outcome(job, f"{where}: {made.said}", True, False, made.pixels, made.size, took, record)

    def attempt_all(self, jobs: Sequence[tuple[Job, Record | None]]) -> list[Outcome]:
        """Do several jobs."""
        return [self.attempt(job, earlier) for job, earlier in jobs]


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _is_there(record: Record) -> bool:
    try:
        return _digest(files.read(files.path(record.written))) == record.result
    except HvcError:
        return False


def failure(job: Job, why: str) -> Outcome:
    """The outcome of a job that came to nothing."""
    return Outcome(job, f"hvcodec: {files.label(job.source)}: {why}", failed=True)


def run(
    jobs: Sequence[Job], work: Work, options: str, journal: str | None = None, ray: bool = False
) -> Iterator[Outcome]:
    """Do jobs, and say of each, as soon as it is known, what became of it.

    Args:
        options: text that says all that results depend on besides content.
        journal: file of a `Journal`; results that it shows to be there are not made again.
        ray: do the work in tasks of Ray, of one core each: on the cluster that this process belongs to
            or `RAY_ADDRESS` names, or else on this machine. The order is then any.

    Raises:
        UsageError: no such journal, or no Ray.
    """
    book = Journal(journal) if journal else None
    task = Task(work, options if book else None)
    todo = ((job, book.find(job) if book else None) for job in jobs)
    outcomes = _by_ray(task, list(todo)) if ray else (task.attempt(*each) for each in todo)
    for outcome in outcomes:
        if book and outcome.record:
            book.add(outcome.record)
        yield outcome


def _by_ray(task: Task, jobs: list[tuple[Job, Record | None]]) -> Iterator[Outcome]:
    """Outcomes of jobs, in the order in which they come."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # say nothing to anybody
    try:
        import ray
    except ImportError:
        raise UsageError("--ray needs Ray: pip install hvcodec[fleet]") from None
    if not ray.is_initialized():
        ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)

    def cores() -> int:
        return max(int(ray.cluster_resources().get("CPU", 1)), 1)

    attempt_all = ray.remote(max_retries=3)(Task.attempt_all)
    sent = ray.put(task)
    size = min(max(len(jobs) // (GROUPS_PER_CORE * cores()), 1), GROUP)
    groups = deque(jobs[n : n + size] for n in range(0, len(jobs), size))
    running: dict[Any, list[tuple[Job, Record | None]]] = {}
    while groups or running:
        room = TASKS_PER_CORE * cores() - len(running)
        for _ in range(min(room, len(groups))):
            group = groups.popleft()
            running[attempt_all.remote(sent, group)] = group
        (ready,), _ = ray.wait(list(running), num_returns=1)
        group = running.pop(ready)
        try:
            yield from ray.get(ready)
        except ray.exceptions.RayError as error:
            # A worker that died, or an error of ours: of one file, so the others are tried without it.
            if len(group) > 1:
                groups.extend([each] for each in group)
                continue
            cause = getattr(error, "cause", None) or error
            yield failure(group[0][0], f"{type(cause).__name__}: {' '.join(str(cause).split())}")


class Summary(TypedDict):
    """Totals; see `summary`."""

    files: int
    made: int
    kept: int
    failed: int
    megapixels: float
    bytes: int
    bpp: float | None
    seconds: float
    core_seconds: float
    failures: list[str]


def summary(outcomes: Sequence[Outcome], seconds: float) -> Summary:
    """Totals of a run that took some seconds.

    Returns:
        files; made, kept (there before) and failed of them; megapixels, bytes (of `.hvc` files) and bpp
        of those that were made; seconds; core_seconds that it took; failures, lines.
    """
    made = [o for o in outcomes if o.made]
    failed = [o for o in outcomes if o.failed]
    pixels, size = sum(o.pixels for o in made), sum(o.size for o in made)
    return {
        "files": len(outcomes),
        "made": len(made),
        "kept": len(outcomes) - len(made) - len(failed),
        "failed": len(failed),
        "megapixels": pixels / 1e6,
        "bytes": size,
        "bpp": 8 * size / pixels if pixels else None,
        "seconds": seconds,
        "core_seconds": sum(o.core_seconds for o in made),
        "failures": [o.said for o in failed],
    }


def describe(found: Summary) -> str:
    """`summary` for people: a table of one line."""
    each = found["core_seconds"] / found["megapixels"] if found["made"] else 0.0
    columns = {
        **{name: str(found[name]) for name in ("files", "made", "kept", "failed")},
        "megapixels": f"{found['megapixels']:.2f}",
        "bytes": str(found["bytes"]),
        "bpp": f"{found['bpp'] or 0:.3f}",
        "seconds": f"{found['seconds']:.1f}",
        "core s/Mpx": f"{each:.2f}",
    }
    widths = [max(len(name), len(value)) for name, value in columns.items()]
    return "\n".join(
        "  ".join(t.rjust(w) for t, w in zip(row, widths)) for row in (columns, columns.values())
    )
