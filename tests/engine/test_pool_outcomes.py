"""The ring of outcomes: the newest of each transaction, the oldest forgotten, and from when on."""

import numpy as np

from engine.pool_outcomes import OutcomeRing
from kernels.layout import U8, U64

SIZE = 100


def secret() -> U64:
    """Return what keys the table."""
    made = np.arange(1, 9, dtype=np.uint64)
    made.flags.writeable = False
    return made


def test_the_newest_outcomes_are_found(rng: np.random.Generator) -> None:
    """Against a dictionary and a list, with hashes that come again and batches beyond the size."""
    ring = OutcomeRing(SIZE, secret())
    names: U8 = rng.integers(0, 256, (180, 32), dtype=np.uint8)
    places: list[bytes] = [b""] * SIZE
    known: dict[bytes, tuple[int, int, int, int]] = {}
    position = 0
    for now_ms in range(1, 200):
        rows = rng.integers(0, len(names), int(rng.integers(0, 130)))
        reasons = rng.integers(0, 200, len(rows)).astype(np.uint8)
        status = int(rng.integers(1, 8))
        ring.put(names[rows], status, reasons, now_ms)
        for row, reason in zip(rows.tolist(), reasons.tolist(), strict=True):
            name = names[row].tobytes()
            oldest = places[position]
            if oldest in known and known[oldest][3] == position:
                del known[oldest]
            places[position] = name
            known[name] = (status, reason, now_ms, position)
            position = (position + 1) % SIZE
        for row in range(len(names)):
            found = known.get(names[row].tobytes())
            assert ring.find(names[row].tobytes()) == (found[:3] if found else None)
    assert len(ring) == SIZE


def test_covered_time() -> None:
    """Nothing is forgotten until the ring is full; then the oldest outcome says from when on."""
    ring = OutcomeRing(3, secret())
    for now_ms in range(10, 13):
        ring.put(np.full((1, 32), now_ms, np.uint8), 1, np.zeros(1, np.uint8), now_ms)
        assert ring.forgotten_ms == 0
    ring.put(np.full((1, 32), 13, np.uint8), 1, np.zeros(1, np.uint8), 13)
    assert ring.forgotten_ms == 11
    assert ring.find(bytes([10] * 32)) is None
    assert ring.resident_bytes > 0
