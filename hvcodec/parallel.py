"""Work on pictures in strips of rows: small enough for a processor's cache, spread over its cores."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import AbstractContextManager
from functools import lru_cache

from threadpoolctl import ThreadpoolController

STRIP = 1 << 18  # numbers in a strip, at most, roughly
LEAST = 1 << 13  # at least: to wake another thread takes longer than so many numbers do
# As many as OMP_NUM_THREADS says, where somebody (Ray, for its workers) deals out the cores.
_GIVEN = os.environ.get("OMP_NUM_THREADS", "")
WORKERS = min(int(_GIVEN) if _GIVEN.isdecimal() else os.cpu_count() or 1, 16) or 1


@lru_cache(maxsize=1)
def _workers() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(WORKERS)


@lru_cache(maxsize=1)
def _libraries() -> ThreadpoolController:
    return ThreadpoolController()


def single_threaded_blas() -> AbstractContextManager:
    """Context in which each product uses one thread, since strips use the others."""
    return _libraries().limit(limits=1, user_api="blas")


def strips(height: int, row_size: int) -> list[tuple[int, int]]:
    """Rows from and to of strips of rows of `row_size` numbers each."""
    shared = max(-(-height // WORKERS), LEAST // row_size)
    rows = max(min(STRIP // row_size, shared), 1)
    return [(top, min(top + rows, height)) for top in range(0, height, rows)]


def in_parallel(work: Callable[[int, int], None], parts: list[tuple[int, int]]) -> None:
    """work(top, bottom) for all parts."""
    left = iter(parts)

    def some() -> None:
        for part in left:
            work(*part)

    # This thread is one of the workers: to wake another costs more than a small part does.
    others = [_workers().submit(some) for _ in range(min(WORKERS, len(parts)) - 1)]
    try:
        some()
    finally:
        wait(others)
    for other in others:
        other.result()
