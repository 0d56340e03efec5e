"""What is known by hash, and what peers may spend: bounds, and what wears off."""

import numpy as np

from engine.gossip.known import LASTS_S, SECRET_BYTES, Known, State
from engine.gossip.quotas import Bucket, Score

SIZE = 64


def known(rng: np.random.Generator) -> Known:
    """Return a small ring."""
    return Known(rng.bytes(SECRET_BYTES), SIZE)


def hashes(rng: np.random.Generator, count: int) -> np.ndarray:
    """Return random hashes."""
    return rng.integers(0, 256, (count, 32), dtype=np.uint8)


def test_holders_are_bits_that_can_be_taken_back(rng: np.random.Generator) -> None:
    """Each peer has a bit of its own, on what it has and on nothing else."""
    ring = known(rng)
    names = hashes(rng, 10)
    ring.add_holder(names[:6], 3)
    ring.add_holder(names[4:8], 31)
    expected = [8] * 4 + [8 | 2**31] * 2 + [2**31] * 2 + [0] * 2
    assert ring.holders(names).tolist() == expected
    ring.forget_holder(3)
    assert ring.holders(names).tolist() == [0] * 4 + [2**31] * 4 + [0] * 2


def test_states_end(rng: np.random.Generator) -> None:
    """A state lasts its seconds, and then the transaction is as unknown as before."""
    ring = known(rng)
    names = hashes(rng, 3)
    for state in State:
        ring.set_state(names, state, 5_000)
        last_ms = 5_000 + int(LASTS_S[state]) * 1_000
        assert (ring.states(names, last_ms) == state).all()
        assert (ring.states(names, last_ms + 1_000) == State.HEARD).all()


def test_the_ring_forgets_the_oldest_alone(rng: np.random.Generator) -> None:
    """However many come, also at once, the last SIZE are known, with nobody else's bits."""
    ring = known(rng)
    names = hashes(rng, 5 * SIZE)
    ring.add_holder(names[:SIZE], 1)
    for start in range(SIZE, 4 * SIZE, 8):
        ring.set_state(names[start : start + 8], State.TAKEN, 0)
    assert (ring.states(names[3 * SIZE : 4 * SIZE], 0) == State.TAKEN).all()
    ring.set_state(names[4 * SIZE - SIZE // 2 :], State.REFUSED, 0)
    states = ring.states(names, 0)
    assert (states[:-SIZE] == State.HEARD).all()
    assert (states[-SIZE:] == State.REFUSED).all()
    assert not ring.holders(names).any()


def test_a_bucket_fills_with_time_and_never_beyond_its_burst() -> None:
    """What is spent comes back at the rate; debts end at one burst; a clock that stands is none."""
    bucket = Bucket(per_s=10, burst=20, now_ms=0)
    assert bucket.take(20, 0)
    assert not bucket.take(1, 99)
    assert bucket.take(1, 100)
    assert not bucket.take(21, 10_000)
    assert bucket.take(20, 10_000)
    bucket.charge(10**6, 10_000)
    assert not bucket.take(1, 12_000)
    assert bucket.take(1, 12_100)
    assert not bucket.take(1, 0)


def test_points_wear_off() -> None:
    """A hundred points within a short while are a ban, the same over a long time are not."""
    quick, slow = Score(0), Score(0)
    assert [quick.add(25, now_ms) for now_ms in (0, 1, 2, 3)] == [False, False, False, False]
    assert quick.add(1, 4)
    assert not any(slow.add(25, 25_000 * turn) for turn in range(100))
