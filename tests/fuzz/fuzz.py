"""Fuzzes the decoder: `python tests/fuzz/fuzz.py --runs 200000 --seed 1 [--corpus FOLDER]`.

File `number` of a run is `mutator.damaged_file("seed:number", corpus)`, the same on every machine.
Files are tried in a process of their own, which may die: after 5 s of processor time for one file, or
for want of memory. Of every kind of failure the first file is kept in `corpus/found`. The last line is
a report in JSON.

Why no coverage guides it: after as many files atheris had reached no more of the decoder, whose flow
hardly depends on what it decodes, and it leaks every array that a comparison makes.
"""

import json
import multiprocessing
import os
import resource
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

os.environ["OMP_NUM_THREADS"] = "1"  # as many threads as cores may reserve more memory than the limit

import click
import mutator
import target
from tqdm import tqdm

from hvcodec import parallel

CORPUS = Path(__file__).parent / "corpus"
SECONDS = 5  # of processor time for a file; the clock would blame files for a busy machine
HANGS = 100  # seconds on the clock after which a file is given up
MEMORY = 1 << 30  # bytes of the whole process


class Tried(NamedTuple):
    """What came of a file.

    Attributes:
        number: of the file.
        depth: one of `target.DEPTHS`, or "failed".
        failure: what failed where, on one line, if it did.
        details: for people.
        seconds: of processor time.
        memory: peak of the process so far, bytes.
    """

    number: int
    depth: str
    failure: str = ""
    details: str = ""
    seconds: float = 0.0
    memory: int = 0


def attempt(number: int, data: bytes) -> Tried:
    """Try one file."""
    start = time.process_time()
    depth, failure, details = "failed", "", ""
    try:
        depth = target.check(data)
    except BaseException as error:  # a panic in Rust is no Exception
        last = traceback.extract_tb(error.__traceback__)[-1]
        failure = f"{type(error).__name__} at {Path(last.filename).name}:{last.lineno}"
        details = traceback.format_exc()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    return Tried(number, depth, failure, details, time.process_time() - start, memory)


def work(seed: int, numbers: range, seeds: list[bytes], results: Connection) -> None:
    """Try files one after the other, in a process that a signal ends if one takes too long."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    parallel.WORKERS = 1
    for number in numbers:
        data = mutator.damaged_file(f"{seed}:{number}", seeds)
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        signal.alarm(HANGS)
        results.send(attempt(number, data))


def tried(seed: int, runs: int, seeds: list[bytes]) -> Iterator[Tried]:
    """Try all files of a run, in a new process whenever one dies."""
    number = 0
    while number < runs:
        context = multiprocessing.get_context("spawn")
        results, there = context.Pipe(duplex=False)
        process = context.Process(target=work, args=(seed, range(number, runs), seeds, there))
        process.start()
        there.close()
        try:
            while number < runs:
                yield results.recv()
                number += 1
        except EOFError:
            process.join()
            assert process.exitcode is not None
            why = signal.Signals(-process.exitcode).name if process.exitcode < 0 else "an exit"
            yield Tried(number, "failed", f"the process ended by {why}")
            number += 1
        process.join()


@click.command()
@click.option("--runs", default=200_000, show_default=True, help="Files to try.")
@click.option("--seed", default=1, show_default=True, help="Decides all damage.")
@click.option(
    "--corpus",
    default=CORPUS,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of intact files.",
)
def main(runs: int, seed: int, corpus: Path) -> None:
    """Damage .hvc files in many ways and see that they are decoded or refused."""
    seeds = [path.read_bytes() for path in sorted(corpus.glob("*.hvc"))]
    found = corpus / "found"
    found.mkdir(exist_ok=True)
    depths, failures = Counter[str](), Counter[str]()
    slowest, memory = Tried(0, ""), 0
    for one in tqdm(tried(seed, runs, seeds), total=runs, unit="file", mininterval=1):
        depths[one.depth] += 1
        slowest, memory = max(slowest, one, key=lambda t: t.seconds), max(memory, one.memory)
        if one.failure and one.failure not in failures:
            kept = found / f"{seed}-{one.number}.hvc"
            kept.write_bytes(mutator.damaged_file(f"{seed}:{one.number}", seeds))
            tqdm.write(f"{kept}: {one.failure}\n{one.details}", sys.stderr)
        failures.update([one.failure] if one.failure else [])
    report = {
        "seed": seed,
        "runs": depths.total(),
        "depths": {depth: depths[depth] for depth in (*target.DEPTHS, "failed")},
        "failures": failures,
        "slowest": {"number": slowest.number, "seconds": round(slowest.seconds, 2)},
        "peak_megabytes": memory >> 20,
    }
    print(json.dumps(report))
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
