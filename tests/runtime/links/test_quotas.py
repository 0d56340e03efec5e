"""Token buckets and bans: what a peer may send, and that their tables are bounded."""

import random
from dataclasses import replace

import pytest

from runtime.links.admission import Admission, Bans, Refused
from runtime.links.limits import BANS_MAX, BUCKETS_MAX, FRAME_COST_BYTES
from runtime.links.quotas import Quotas, TokenBucket
from tests.runtime.links.harness import LIMITS, OPEN_LIMITS


def test_a_bucket_never_gives_more_than_burst_and_rate(seed: int) -> None:
    """In any span of time at most burst + rate x time is taken, and a patient taker gets it."""
    rng = random.Random(seed)
    bucket = TokenBucket(per_s=100, burst=50, now_ms=0)
    now_ms = taken = 0
    for _ in range(2_000):
        now_ms += rng.randrange(20)
        wanted = rng.randrange(1, 10)
        if bucket.take(wanted, now_ms):
            taken += wanted
        assert taken * 1_000 <= 50 * 1_000 + 100 * now_ms
    assert taken * 1_000 >= 100 * now_ms * 9 // 10 - 10_000


def test_time_that_goes_back_gives_nothing() -> None:
    """A bucket that is asked about the past has what it had."""
    bucket = TokenBucket(per_s=1_000, burst=1, now_ms=1_000)
    assert bucket.take(1, 1_000)
    assert not bucket.take(1, 500)
    assert bucket.take(1, 1_001)
    assert TokenBucket(per_s=1_000, burst=1, now_ms=1_000).take(1, 500)


def test_ranks_have_buckets_of_their_own() -> None:
    """A member's quota is not used up by what it sent as a stranger; small frames cost more."""
    quotas = Quotas(OPEN_LIMITS)
    sent = 0
    while quotas.charge(b"key", 1, is_full=False, now_ms=0):
        sent += 1
    assert sent == OPEN_LIMITS.stranger_burst_bytes // (1 + FRAME_COST_BYTES)
    assert quotas.charge(b"key", 10_000, is_full=True, now_ms=0)


def test_quotas_are_bounded_and_forgotten() -> None:
    """However many keys send, few buckets are held, and full ones go."""
    quotas = Quotas(LIMITS)
    while quotas.charge(b"loud", 10_000, is_full=True, now_ms=0):
        pass
    for number in range(BUCKETS_MAX + 10):
        assert quotas.charge(number.to_bytes(4, "big"), 1, is_full=True, now_ms=0)
    assert len(quotas) == BUCKETS_MAX
    assert not quotas.charge(b"loud", 10_000, is_full=True, now_ms=0), "the fullest goes first"
    quotas.tick(60_000)
    assert len(quotas) == 0


def test_bans_are_bounded_and_end() -> None:
    """A ban holds until its time, a longer one wins, and the first to end makes room."""
    bans = Bans()
    bans.add(b"a", 100)
    bans.add(b"a", 50)
    assert bans.holds(b"a", 99)
    assert not bans.holds(b"a", 100)
    for number in range(BANS_MAX):
        bans.add(number.to_bytes(4, "big"), 200 + number)
    assert len(bans.banned()) == BANS_MAX
    assert not bans.holds(b"a", 0)
    assert len(bans.tick(300)) == 101


def test_strangers_leave_room_for_all_members() -> None:
    """As many come in as `peers_max` leaves beside the members, whether those are here or not."""
    limits = replace(OPEN_LIMITS, peers_max=5)
    members = [b"m", b"n"]
    admission = Admission(own_key=b"o", limits=limits, members=members)
    admission.check(b"s", 2, 0)
    with pytest.raises(Refused) as caught:
        admission.check(b"s", 3, 0)
    assert caught.value.reason == "no_room"
    admission.check(b"m", 3, 0)
