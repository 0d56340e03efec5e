"""What is read back for peers: all are bounded in every direction, members more generously."""

import numpy as np
import pytest

from consensus.core.events import FetchPayload
from consensus.core.types import Hash32
from consensus.payloads import frames
from consensus.payloads import readings as readings_module
from consensus.payloads.chunks import CHUNK_BYTES, tree_of
from consensus.payloads.limits import (
    MEMBER_READ_BYTES_PER_S,
    MEMBER_SERVED_BYTES_PER_S,
    READ_ASKERS_MAX,
    READ_COST_BYTES_MIN,
    READS_MAX,
    READS_PER_PEER_MAX,
    SERVED_BURST_PAYLOADS,
    STRANGER_READ_BYTES_PER_S,
    STRANGERS_READ_BYTES_PER_S,
    STRANGERS_READS_MAX,
    MemoryLimits,
)
from consensus.payloads.outputs import Read, SendFrame
from consensus.payloads.readings import Readings
from consensus.payloads.shelf import cost_of
from consensus.payloads.transfer import Transfer

PAYLOAD_BYTES_MAX = 8 * CHUNK_BYTES
BURST_BYTES = SERVED_BURST_PAYLOADS * PAYLOAD_BYTES_MAX
MEMORY = MemoryLimits.of(payload_bytes_max=PAYLOAD_BYTES_MAX, held_bytes_max=2**26)
MEMBER = b"m" * 32
TURN_MS = 10


def get_of(number: int, payload_bytes: int = CHUNK_BYTES, commitment: bytes = b"") -> frames.Get:
    """Return a question for one chunk of the block with this number."""
    name = Hash32(number.to_bytes(32, "big"))
    return frames.Get(
        block_hash=name,
        commitment=Hash32(commitment or name),
        payload_bytes=payload_bytes,
        first=0,
        count=1,
    )


def stranger(number: int) -> bytes:
    """Return the key of a stranger."""
    return b"s" + number.to_bytes(31, "big")


def read_for(
    readings: Readings, keys: list[bytes], *, seconds: int, payload_bytes: int, is_member: bool
) -> int:
    """Let peers ask for one new block after the other; return how many are read in that time."""
    count = number = 0
    for now_ms in range(0, seconds * 1_000, TURN_MS):
        for key in keys:
            number += 1
            get = get_of(number)
            if readings.ask(key, get, is_member=is_member, now_ms=now_ms):
                count += 1
                assert readings.take(get.block_hash, get.commitment, payload_bytes)
    return count


@pytest.mark.parametrize("payload_bytes", [0, 1, PAYLOAD_BYTES_MAX])
@pytest.mark.parametrize("keys", [1, 20])
def test_strangers_have_a_rate_of_readings(payload_bytes: int, keys: int) -> None:
    """However many blocks and keys they have; one alone gets half of what all get together."""
    cost = max(payload_bytes, READ_COST_BYTES_MIN)
    rate = STRANGER_READ_BYTES_PER_S if keys == 1 else STRANGERS_READ_BYTES_PER_S
    names = [stranger(n) for n in range(keys)]
    found = read_for(
        Readings(MEMORY), names, seconds=4, payload_bytes=payload_bytes, is_member=False
    )
    most = (BURST_BYTES + 4 * rate) // cost + 2 * len(names)
    assert min(4 * rate // cost, 400) * 9 // 10 < found <= most


def test_members_have_a_rate_of_their_own() -> None:
    """Also while strangers have used up all that is theirs; one member takes nothing of another."""
    readings = Readings(MEMORY)
    names = [stranger(n) for n in range(20)]
    read_for(readings, names, seconds=1, payload_bytes=PAYLOAD_BYTES_MAX, is_member=False)
    assert readings.ask(names[0], get_of(10**6), is_member=False, now_ms=1_000) is None
    for seconds in (1, 6):
        key = bytes([seconds]) * 32
        found = read_for(readings, [key], seconds=seconds, payload_bytes=2**23, is_member=True)
        least = MEMBER_READ_BYTES_PER_S // 2**23 * seconds
        most = least + MEMBER_READ_BYTES_PER_S // 2**23 + 2
        assert min(least, seconds * 1_000 // TURN_MS) <= found <= most
    assert found < 6_000 // TURN_MS, "a faulty one does not keep the executor busy for ever"
    assert readings.ask(MEMBER, get_of(10**6), is_member=True, now_ms=6_000)


def test_a_member_that_catches_up_is_never_refused() -> None:
    """Who takes every payload whole, as fast as one member is sent anything, from the first on."""
    per_s = MEMBER_SERVED_BYTES_PER_S // 2**23
    readings = Readings(MEMORY)
    for number in range(20 * per_s):
        get = get_of(number)
        assert readings.ask(MEMBER, get, is_member=True, now_ms=number * 1_000 // per_s)
        assert readings.take(get.block_hash, get.commitment, 2**23)


def test_members_find_room_whatever_others_ask_for() -> None:
    """Eight faulty ones fill all readings: each other member has one all the same."""
    readings = Readings(MEMORY)
    for number in range(READS_MAX + 8):
        readings.ask(bytes([number % 8]) * 32, get_of(number), is_member=True, now_ms=0)
    assert len(readings) == READS_MAX
    assert readings.ask(stranger(0), get_of(100), is_member=False, now_ms=0) is None
    for number in range(200, 220):
        name = number.to_bytes(32, "big")
        assert readings.ask(name, get_of(number), is_member=True, now_ms=0)
        assert readings.ask(name, get_of(number + 100), is_member=True, now_ms=0) is None


def test_a_follower_is_not_held_up() -> None:
    """Who takes every payload whole at the rate that strangers are served with is never refused."""
    per_s = STRANGER_READ_BYTES_PER_S // PAYLOAD_BYTES_MAX
    readings = Readings(MEMORY)
    for number in range(20 * per_s):
        get = get_of(number)
        now_ms = number * 1_000 // per_s
        assert readings.ask(stranger(0), get, is_member=False, now_ms=now_ms)
        assert readings.take(get.block_hash, get.commitment, PAYLOAD_BYTES_MAX)


def test_strangers_leave_room_among_the_readings() -> None:
    """Many keys have a part of what is read at once; each key a smaller one; who joins is free."""
    large = MemoryLimits.of(payload_bytes_max=2**26, held_bytes_max=2**29)
    readings = Readings(large)
    for number in range(100):
        readings.ask(stranger(number % 10), get_of(number), is_member=False, now_ms=0)
    assert len(readings) == STRANGERS_READS_MAX
    assert readings.ask(stranger(50), get_of(0), is_member=False, now_ms=0) is False
    begun = [
        readings.ask(MEMBER, get_of(number), is_member=True, now_ms=0)
        for number in range(1_000, 1_000 + READS_PER_PEER_MAX + 1)
    ]
    assert begun == [True] * READS_PER_PEER_MAX + [None]


def test_a_member_may_have_a_second_of_it_at_once() -> None:
    """Also where payloads are small, so that two of them are no burst."""
    readings, now_ms, count = Readings(MEMORY), 0, 0
    while readings.ask(MEMBER, get_of(count), is_member=True, now_ms=now_ms):
        assert readings.take(get_of(count).block_hash, get_of(count).commitment, 2**23)
        count += 1
    assert count == MEMBER_READ_BYTES_PER_S // 2**23


def test_who_waits_for_one_reading_is_bounded() -> None:
    """A reading has so many askers; to push it as well is none, and is not forgotten."""
    readings, get = Readings(MEMORY), get_of(1)
    asked = [
        readings.ask(bytes([number]) * 32, get, is_member=True, now_ms=0)
        for number in range(READ_ASKERS_MAX + 1)
    ]
    assert asked == [True, *[False] * (READ_ASKERS_MAX - 1), None]
    assert not readings.push(get.block_hash, get.commitment)
    reading = readings.take(get.block_hash, get.commitment, 0)
    assert reading is not None
    assert reading.is_push
    assert len(reading.askers) == READ_ASKERS_MAX
    assert readings.push(get.block_hash, get.commitment), "another begins"


def test_who_reads_is_not_forgotten_before_who_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many keys a stranger has, its own reading counts for as long as it goes on."""
    monkeypatch.setattr(readings_module, "READ_BUCKETS_MAX", 2)
    readings = Readings(MEMORY)
    for number in (0, 1, 0, 2):
        read_for(readings, [stranger(number)], seconds=1, payload_bytes=0, is_member=False)
    assert list(readings._strangers._of_peer) == [stranger(0), stranger(2)]


def test_what_is_remembered_of_strangers_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stranger more than there is room for puts the one out that read longest ago."""
    monkeypatch.setattr(readings_module, "READ_BUCKETS_MAX", 3)
    readings = Readings(MEMORY)
    for number in range(10):
        read_for(readings, [stranger(number)], seconds=1, payload_bytes=0, is_member=False)
        assert len(readings._strangers._of_peer) <= 3


def read_back(
    core: Transfer, number: int, rng: np.random.Generator, payload_bytes: int = PAYLOAD_BYTES_MAX
) -> frames.Get:
    """Let a stranger have a payload read back that is not here; return its question."""
    payload, now_ms = rng.bytes(payload_bytes), 1_000 * number
    tree = tree_of(payload)
    get = get_of(number, payload_bytes, tree.commitment)
    core.receive(stranger(0), frames.encode_get(get), now_ms)
    assert [output for output in core.take_outputs() if isinstance(output, Read)]
    core.stored(get.block_hash, tree.commitment, (tree, payload), now_ms)
    return get


def is_here(core: Transfer, get: frames.Get, peer: bytes) -> bool:
    """Let a peer ask; say whether chunks are sent without a reading."""
    core.receive(peer, frames.encode_get(get), 10**6)
    is_sent = not [o for o in core.take_outputs() if isinstance(o, Read | SendFrame)]
    core.lose(peer)
    return is_sent


WALK = 3 * MEMORY.kept_bytes_max // PAYLOAD_BYTES_MAX
"""payloads that fill the cache thrice"""


def test_strangers_do_not_empty_the_cache(rng: np.random.Generator) -> None:
    """What was dropped a moment ago is here for laggards, however much strangers have read back."""
    core = Transfer(MEMORY)
    core.set_members([MEMBER])
    warm = rng.bytes(4 * CHUNK_BYTES)
    tree = tree_of(warm)
    core.hold(tree, warm, 0)
    core.drop(tree.commitment, 0)
    asked = [read_back(core, number, rng) for number in range(WALK)]
    core.lose(stranger(0))
    assert core.bytes_held <= MEMORY.strangers_cached_bytes_max + 5 * CHUNK_BYTES
    assert is_here(core, get_of(10**6, len(warm), tree.commitment), MEMBER)
    fits = MEMORY.strangers_cached_bytes_max // cost_of(PAYLOAD_BYTES_MAX)
    assert fits >= 2
    assert all(is_here(core, get, stranger(1)) for get in asked[-fits:]), "they have a share"
    assert not is_here(core, asked[0], stranger(1))


def test_what_others_want_as_well_is_no_share_of_strangers(rng: np.random.Generator) -> None:
    """A payload that was read back for a stranger and wanted by a member, or here, stays longer."""
    core = Transfer(MEMORY)
    core.set_members([MEMBER])
    of_member, of_node = read_back(core, 0, rng), read_back(core, 1, rng)
    assert is_here(core, of_member, MEMBER)
    core.fetch(
        FetchPayload(
            block_hash=of_node.block_hash,
            payload_commitment=of_node.commitment,
            payload_bytes=of_node.payload_bytes,
            peers=(),
        ),
        2_000,
    )
    assert core.get(of_node.commitment) is not None
    core.drop(of_node.commitment, 2_000)
    for number in range(2, WALK):
        read_back(core, number, rng)
    assert is_here(core, of_member, MEMBER)
    assert is_here(core, of_node, MEMBER)
