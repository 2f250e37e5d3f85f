"""Work on pictures in strips of rows: small enough for a processor's cache, spread over its cores."""

import math
import os
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import lru_cache
from queue import SimpleQueue

import numpy as np
from threadpoolctl import ThreadpoolController

STRIP = 1 << 19  # numbers in a strip, roughly: smaller ones make threads wait for each other
LEAST = 1 << 15  # at least: to wake another thread takes longer than so many numbers do
# As many as OMP_NUM_THREADS says, where somebody (Ray, for its workers) deals out the cores.
_GIVEN = os.environ.get("OMP_NUM_THREADS", "")
WORKERS = min(int(_GIVEN) if _GIVEN.isdecimal() else os.cpu_count() or 1, 16) or 1


class Scratch(threading.local):
    """Memory for what strips leave behind, kept by each thread: fresh memory costs as much time as the
    arithmetic in it."""

    def __init__(self) -> None:
        self._kept = np.empty(0, np.float32)

    def arrays(self, *shapes: tuple[int, ...]) -> list[np.ndarray]:
        """float32 arrays of some shapes, of any content; the next call gives the same memory."""
        ends = np.cumsum([math.prod(shape) for shape in shapes]).tolist()
        if len(self._kept) < ends[-1]:
            self._kept = np.empty(ends[-1], np.float32)
        parts = np.split(self._kept[: ends[-1]], ends[:-1])
        return [part.reshape(shape) for part, shape in zip(parts, shapes)]


def _serve(calls: SimpleQueue) -> None:
    while True:
        calls.get()()


@lru_cache(maxsize=1)
def _helpers() -> SimpleQueue:
    """What is put here, threads call. (An executor takes five times as long to hand over work, which is
    as long as a strip of an elementwise operation takes.)"""
    calls: SimpleQueue = SimpleQueue()
    for _ in range(WORKERS - 1):
        threading.Thread(target=_serve, args=(calls,), daemon=True).start()
    return calls


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_helpers.cache_clear)  # threads do not come along


@lru_cache(maxsize=1)
def _libraries() -> ThreadpoolController:
    return ThreadpoolController()


def single_threaded_blas() -> AbstractContextManager:
    """Context in which each product uses one thread, since strips use the others."""
    return _libraries().limit(limits=1, user_api="blas")


def strips(
    height: int, row_size: int, most: int | None = None, least: int | None = None
) -> list[tuple[int, int]]:
    """Rows from and to of strips of rows of `row_size` numbers each, as many for each thread.

    Args:
        most, least: numbers in a strip, instead of `STRIP` and `LEAST`.
    """
    size = height * row_size
    count = WORKERS * -(-size // ((most or STRIP) * WORKERS))
    rows = -(-height // min(count, max(size // (least or LEAST), 1))) if size else 1
    return [(top, min(top + rows, height)) for top in range(0, height, rows)]


def in_parallel(work: Callable[[int, int], None], parts: list[tuple[int, int]]) -> None:
    """work(top, bottom) for all parts."""
    left = iter(parts)
    ended: SimpleQueue = SimpleQueue()

    def some() -> None:
        error = None
        try:
            for part in left:
                work(*part)
        except BaseException as caught:
            error = caught
        ended.put(error)

    # This thread is one of the workers: to wake another costs more than a small part does.
    count = min(WORKERS, len(parts))
    for _ in range(count - 1):
        _helpers().put(some)
    some()
    for error in [ended.get() for _ in range(count)]:
        if error:
            raise error
