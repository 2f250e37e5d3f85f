import os
import time

import pytest

from hvcodec import parallel


@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize("height,row_size", [(0, 7), (1, 1), (7, 1 << 20), (512, 768), (4096, 12288)])
def test_strips_cover_every_row_once(monkeypatch, workers, height, row_size):
    monkeypatch.setattr(parallel, "WORKERS", workers)
    found = parallel.strips(height, row_size)
    assert [row for top, bottom in found for row in range(top, bottom)] == list(range(height))
    largest = max([bottom - top for top, bottom in found], default=0)
    assert (largest - 1) * row_size < parallel.STRIP  # the last row may reach over


def test_every_part_is_worked_on_once(monkeypatch):
    monkeypatch.setattr(parallel, "WORKERS", 3)
    seen = []
    parallel.in_parallel(
        lambda top, bottom: seen.append((top, bottom)), [(n, n + 1) for n in range(99)]
    )
    assert sorted(seen) == [(n, n + 1) for n in range(99)]


def test_an_error_in_any_thread_is_the_callers(monkeypatch):
    monkeypatch.setattr(parallel, "WORKERS", 2)

    def work(top, bottom):
        time.sleep(0.02)  # so that both threads have parts
        raise ValueError(f"part {top}")

    for _ in range(3):  # the threads live on
        with pytest.raises(ValueError, match="part"):
            parallel.in_parallel(work, [(0, 1), (1, 2)])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_has_threads_of_its_own(monkeypatch):
    monkeypatch.setattr(parallel, "WORKERS", 2)
    parts = [(0, 1), (1, 2)]
    parallel.in_parallel(lambda top, bottom: None, parts)
    child = os.fork()
    if not child:
        status = 1
        try:
            parallel.in_parallel(lambda top, bottom: None, parts)
            status = 0
        finally:
            os._exit(status)
    for _ in range(200):
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            break
        time.sleep(0.05)
    else:
        os.kill(child, 9)
        os.waitpid(child, 0)
        pytest.fail("it waits for threads that it does not have")
    assert status == 0
