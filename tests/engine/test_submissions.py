"""The queue of submitted transactions: what is taken, in which order, and what leaves it."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from engine.columns import to_records
from engine.submissions import PASSED_OVER_MAX, Submissions
from engine.verified import VerifiedMarks
from engine_api.types import RECORD_BYTES, SubmitResult
from kernels.backend import Backend, open_backend
from spec import oracle
from tests.engine.homes import CHAIN_ID, Maker

WAIT_MS = 30_000
QUEUED = bytes([SubmitResult.QUEUED])
FULL = bytes([SubmitResult.QUEUE_FULL])
REFUSED = bytes([SubmitResult.REFUSED])


@pytest.fixture(scope="module")
def backend() -> Iterator[Backend]:
    """Open the vectorised arm."""
    opened = open_backend("cpu", 2)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def maker() -> Maker:
    """Return a maker of signed transactions."""
    return Maker()


@pytest.fixture
def queue(backend: Backend, maker: Maker) -> Submissions:
    """Return a queue of ten places."""
    return Submissions(
        chain_id=CHAIN_ID,
        domain=maker.domain,
        backend=lambda: backend,
        marks=VerifiedMarks(64),
        records_max=10,
    )


def records(*transactions: Any) -> bytes:
    """Return transactions as records."""
    return b"".join(oracle.encode_transaction(item) for item in transactions)


def some(maker: Maker, count: int, start: int = 0) -> list[Any]:
    """Return transactions of one sender."""
    return [maker.transaction(0, nonce, b"\x01" * 32) for nonce in range(start, start + count)]


def waiting(queue: Submissions) -> bytes:
    """Return what waits, as records."""
    return to_records(queue.peek(1_000)[0]).tobytes()


def test_first_in_first_out_until_it_is_full(queue: Submissions, maker: Maker) -> None:
    """Records wait in the order in which they came; what finds no place is told so."""
    made = some(maker, 12)
    assert queue.submit(records(*made[:4])) == QUEUED * 4
    assert queue.submit(records(*made[4:])) == QUEUED * 6 + FULL * 2
    assert waiting(queue) == records(*made[:10])
    assert queue.submit(records(made[11])) == FULL
    columns, hashes = queue.peek(3)
    assert len(columns.kind) == len(hashes) == 3
    assert [h.tobytes() for h in hashes] == [oracle.transaction_hash(t) for t in made[:3]]


def test_what_no_payload_can_carry_is_refused(queue: Submissions, maker: Maker) -> None:
    """Version, kind, chain, reserved bytes, signature; the records beside it are taken."""
    good = maker.transaction(1, 0, b"\x01" * 32)
    reserved = bytearray(records(good))
    reserved[41] = 1
    bad = [
        records(replace(good, version=2)),
        records(replace(good, kind=1)),
        records(replace(good, chain_id=CHAIN_ID + 1)),
        bytes(reserved),
        records(replace(good, signature=bytes(64))),
        records(replace(good, amount=good.amount + 1)),
        bytes(RECORD_BYTES),
    ]
    assert queue.submit(records(good) + b"".join(bad)) == QUEUED + REFUSED * len(bad)
    assert waiting(queue) == records(good)


def test_removed_and_quarantined(queue: Submissions, maker: Maker) -> None:
    """What is final leaves and may come again; what is quarantined leaves for good."""
    made = some(maker, 6)
    queue.submit(records(*made))
    hashes = np.frombuffer(
        b"".join(oracle.transaction_hash(made[n]) for n in (1, 4)), np.uint8
    ).reshape(-1, 32)
    queue.remove(hashes)
    assert waiting(queue) == records(made[0], made[2], made[3], made[5])
    queue.quarantine(oracle.transaction_hash(made[2]))
    assert waiting(queue) == records(made[0], made[3], made[5])
    assert queue.submit(records(made[1], made[2])) == QUEUED + REFUSED
    queue.remove(np.empty((0, 32), np.uint8))
    assert len(queue) == 4


def test_what_is_of_no_use_is_dropped_in_the_end(queue: Submissions, maker: Maker) -> None:
    """After so many builds that could not use it a record goes; useful ones stay."""
    made = some(maker, 3)
    queue.submit(records(*made))
    for _ in range(PASSED_OVER_MAX):
        _, hashes = queue.peek(10)
        assert len(hashes) == 3
        queue.pass_over(hashes, np.array([False, True, False]))
    assert waiting(queue) == records(made[0], made[2])


def test_a_build_that_looked_at_an_older_queue(queue: Submissions, maker: Maker) -> None:
    """What moved since `peek` is not mistaken for what stood there."""
    made = some(maker, 4)
    queue.submit(records(*made))
    _, hashes = queue.peek(10)
    queue.remove(hashes[:1])
    for _ in range(2 * PASSED_OVER_MAX):
        queue.pass_over(hashes, np.ones(4, np.bool_))
    assert waiting(queue) == records(*made[1:])


def test_waiting_ends_with_work_or_with_the_caller(queue: Submissions, maker: Maker) -> None:
    """`wait` returns when something comes, when nobody waits any more, and when there is work."""
    queue.wait(0)
    queue.wait(WAIT_MS, lambda: True)
    made = some(maker, 1)
    thread = threading.Thread(target=queue.submit, args=(records(*made),))
    thread.start()
    queue.wait(WAIT_MS)
    thread.join()
    assert len(queue) == 1
    queue.wait(WAIT_MS)
