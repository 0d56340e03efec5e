"""Payloads reach every honest peer over a bad network, and nothing wrong is ever taken."""

from collections.abc import Callable

import numpy as np
import pytest

from consensus.core.types import Hash32
from consensus.payloads import frames
from consensus.payloads.chunks import CHUNK_BYTES, ChunkTree, chunk_count, tree_of
from consensus.payloads.limits import (
    FETCH_AGAIN_MS,
    FETCH_ROUNDS_MAX,
    READS_MAX,
    READS_PER_PEER_MAX,
    SERVED_BURST_PAYLOADS,
    STRANGERS_SERVED_BYTES_PER_S,
    UNASKED_MS_MAX,
    UNASKED_PER_SENDER_MAX,
    UPLOADS_PER_PEER_MAX,
    WINDOW_CHUNKS_MAX,
    MemoryLimits,
)
from consensus.payloads.outputs import Ban, Read, SendFrame
from tests.consensus.payloads import net as nets
from tests.consensus.payloads.net import Forge, Net

PAYLOAD_BYTES_MAX = 20 * CHUNK_BYTES
HELD_BYTES_MAX = 8 * PAYLOAD_BYTES_MAX
MEMORY = MemoryLimits.of(payload_bytes_max=PAYLOAD_BYTES_MAX, held_bytes_max=HELD_BYTES_MAX)
FORGERIES = (nets.flip_chunks, nets.silent, nets.noise)


def everybody_has(net: Net, tree: ChunkTree, hosts: list[int]) -> Callable[[], bool]:
    """Return the question whether all of these hosts hold the payload."""
    return lambda: all(net.host(i).core.get(tree.commitment) is not None for i in hosts)


def check_bounds(net: Net) -> None:
    """Memory stayed within its bound at every host, and honest ones banned no honest one."""
    for host in net.hosts.values():
        assert host.bytes_held_max <= HELD_BYTES_MAX
        assert set(host.banned) <= set(net.liars)


@pytest.mark.parametrize("trial", range(12))
def test_a_payload_arrives_everywhere(trial: int, rng: np.random.Generator) -> None:
    """With loss, doubling, overtaking and lying peers every honest asker gets the exact bytes."""
    host_count = int(rng.integers(3, 8))
    net = Net(
        rng,
        host_count=host_count,
        memory=MEMORY,
        loss_permille=int(rng.integers(0, 200)),
        double_permille=int(rng.integers(0, 200)),
        delay_ms_max=int(rng.integers(1, 80)),
    )
    payload = rng.bytes(int(rng.integers(1, PAYLOAD_BYTES_MAX)))
    tree = net.hold(0, payload)
    liars = range(host_count - int(rng.integers(0, host_count - 2)), host_count)
    for liar in liars:
        net.liars[net.keys[liar]] = FORGERIES[int(rng.integers(len(FORGERIES)))]
    askers = [i for i in range(1, host_count) if i not in liars]
    if trial % 2:
        net.push(0, tree)
    for asker in askers:
        named = tuple(int(i) for i in rng.integers(0, host_count, 2) if i != asker)
        net.fetch(asker, tree.commitment, len(payload), named)

    def has_arrived() -> bool:
        for asker in askers:  # as the core does when a fetch was given up
            host = net.host(asker)
            if host.failed:
                host.failed.clear()
                net.fetch(asker, tree.commitment, len(payload), (0,))
        return everybody_has(net, tree, askers)()

    assert net.run(has_arrived, 120_000)
    for asker in askers:
        assert net.host(asker).core.get(tree.commitment) == payload
        assert net.host(asker).arrived == [tree.commitment]
    check_bounds(net)


def test_a_push_needs_no_question(rng: np.random.Generator) -> None:
    """What was pushed whole is there when it is asked for, without a frame more."""
    net = Net(rng, host_count=4, memory=MEMORY)
    payload = rng.bytes(7 * CHUNK_BYTES + 1)
    tree = net.hold(0, payload)
    net.push(0, tree)
    net.run(lambda: False, 500)
    assert not any(net.host(i).arrived for i in range(4))
    assert net.sent_bytes < 3 * (len(payload) + 8 * 600), "every chunk goes once to each"
    sent = net.sent_bytes
    for i in (1, 2, 3):
        net.fetch(i, tree.commitment, len(payload))
        net.turn()
        assert net.host(i).arrived == [tree.commitment]
        assert net.host(i).core.get(tree.commitment) == payload
    assert net.sent_bytes == sent
    check_bounds(net)


def test_a_push_that_is_asked_for_meanwhile_goes_once(rng: np.random.Generator) -> None:
    """A fetch that names the pusher costs small frames alone: no chunk is sent twice."""
    net = Net(rng, host_count=4, memory=MEMORY, delay_ms_max=3)
    payload = rng.bytes(20 * CHUNK_BYTES)
    tree = net.hold(0, payload)
    net.push(0, tree)
    for i in (1, 2, 3):
        net.fetch(i, tree.commitment, len(payload), (0,))
    assert net.run(everybody_has(net, tree, [1, 2, 3]))
    assert sum(h.core.counts.get("chunks_out", 0) for h in net.hosts.values()) <= 3 * 20 + 3


def test_several_sources_share_a_fetch(rng: np.random.Generator) -> None:
    """Named peers are asked at the same time for different chunks."""
    net = Net(rng, host_count=5, memory=MEMORY, delay_ms_min=40, delay_ms_max=60)
    payload = rng.bytes(20 * CHUNK_BYTES)
    for i in (1, 2, 3, 4):
        tree = net.hold(i, payload)
    net.fetch(0, tree.commitment, len(payload), (1, 2, 3, 4))
    net.run(lambda: False, 2_000)
    assert net.host(0).arrived == [tree.commitment]
    sent = [net.host(i).core.counts.get("chunks_out", 0) for i in (1, 2, 3, 4)]
    assert sum(sent) == 20
    assert min(sent[1:]) > 0


def test_a_payload_is_read_back_from_the_executor(rng: np.random.Generator) -> None:
    """A peer that has a payload only in its executor serves it; pushed the same way."""
    net = Net(rng, host_count=3, memory=MEMORY)
    payload = rng.bytes(3 * CHUNK_BYTES)
    tree = tree_of(payload)
    net.host(0).executor[nets.block_hash_of(tree.commitment)] = payload
    net.fetch(1, tree.commitment, len(payload), (0,))
    assert net.run(everybody_has(net, tree, [1]))
    other = rng.bytes(CHUNK_BYTES)
    net.host(0).executor[nets.block_hash_of(tree_of(other).commitment)] = other
    net.push(0, tree_of(other))
    net.fetch(2, tree_of(other).commitment, len(other))
    assert net.run(everybody_has(net, tree_of(other), [2]))


def test_a_fetch_of_nothing_fails_once(rng: np.random.Generator) -> None:
    """Nobody has it: one failure, within the bound; cut off from all: the same, later."""
    net = Net(rng, host_count=4, memory=MEMORY)
    net.fetch(0, b"x" * 32, 1_000_000, (1, 2))
    net.fetch(0, b"x" * 32, 1_000_000, (3,))
    assert net.run(lambda: bool(net.host(0).failed), 1_000)
    net.cut = set(net.keys)
    net.fetch(1, b"y" * 32, 1_000_000, (0,))
    assert net.run(lambda: bool(net.host(1).failed), 4_000)
    net.run(lambda: False, 5_000)
    assert net.host(0).failed == [b"x" * 32]
    assert net.host(1).failed == [b"y" * 32]
    assert net.host(0).core.gauges()["payloads"] == 0


@pytest.mark.parametrize("said", [1, 3 * CHUNK_BYTES + 5, 20 * CHUNK_BYTES])
def test_a_header_with_a_wrong_length_costs_one_chunk(said: int, rng: np.random.Generator) -> None:
    """A fetch under a wrong payload_bytes finds the true length by the first proof."""
    net = Net(rng, host_count=4, memory=MEMORY)
    payload = rng.bytes(9 * CHUNK_BYTES)
    tree = net.hold(0, payload)
    net.fetch(1, tree.commitment, said, (0,))
    assert net.run(everybody_has(net, tree, [1]))
    assert net.host(1).core.get(tree.commitment) == payload
    check_bounds(net)


def test_empty_payloads(rng: np.random.Generator) -> None:
    """A payload of no transactions is one chunk; one of no bytes is known without asking."""
    net = Net(rng, host_count=3, memory=MEMORY)
    payload = b"TOSPAYLD".ljust(128, b"\0")
    tree = net.hold(0, payload)
    net.push(0, tree)
    net.fetch(1, tree.commitment, 128, (0,))
    assert net.run(everybody_has(net, tree, [1]))
    net.host(1).core.drop(tree.commitment, net.now_ms)
    assert net.host(1).core.get(tree.commitment) is None
    net.fetch(1, tree.commitment, 128)
    net.turn()
    assert net.host(1).arrived == [tree.commitment] * 2
    nothing = tree_of(b"").commitment
    net.fetch(2, nothing, 0)
    net.fetch(2, b"z" * 32, 0)
    net.turn()
    assert net.host(2).arrived == [nothing]
    assert net.host(2).core.get(nothing) == b""
    assert net.host(2).failed == [b"z" * 32]


@pytest.mark.parametrize("forge", FORGERIES)
def test_a_liar_alone_convinces_nobody(forge: Forge, rng: np.random.Generator) -> None:
    """With no honest source the fetch fails, and nothing is held; wrong chunks cost a ban."""
    net = Net(rng, host_count=3, memory=MEMORY)
    payload = rng.bytes(6 * CHUNK_BYTES)
    tree = net.hold(0, payload)
    net.liars[net.keys[0]] = forge
    net.push(0, tree)
    net.fetch(1, tree.commitment, len(payload), (0,))
    assert net.run(lambda: bool(net.host(1).failed), 10_000)
    assert net.host(1).core.get(tree.commitment) is None
    assert bool(net.host(1).banned) == (forge is not nets.silent)
    check_bounds(net)


def chunk_of(payload: bytes, index: int) -> bytes:
    """Return a right frame."""
    tree = tree_of(payload)
    start = index * CHUNK_BYTES
    return frames.encode_chunk(
        commitment=tree.commitment,
        payload_bytes=len(payload),
        index=index,
        path=tree.path(index),
        data=memoryview(payload)[start : start + CHUNK_BYTES],
    )


def test_what_nobody_asked_for_is_bounded_per_sender(rng: np.random.Generator) -> None:
    """A flood of right chunks displaces the flooder's own alone, and is forgotten in time."""
    net = Net(rng, host_count=3, memory=MEMORY)
    core = net.host(0).core
    honest = rng.bytes(2 * CHUNK_BYTES)
    core.receive(net.keys[1], chunk_of(honest, 0), net.now_ms)
    for number in range(3 * UNASKED_PER_SENDER_MAX):
        payload = number.to_bytes(4, "little") * 16
        core.receive(net.keys[2], chunk_of(payload, 0), net.now_ms)
        assert core.gauges()["payloads"] <= 1 + UNASKED_PER_SENDER_MAX
    for number in range(8):
        payload = number.to_bytes(4, "little") * (PAYLOAD_BYTES_MAX // 4)
        core.receive(net.keys[2], chunk_of(payload, 0), net.now_ms)
        assert core.bytes_held <= 3 * PAYLOAD_BYTES_MAX
    core.receive(net.keys[1], chunk_of(honest, 1), net.now_ms)
    net.fetch(0, tree_of(honest).commitment, len(honest))
    net.turn()
    assert net.host(0).arrived == [tree_of(honest).commitment]
    net.run(lambda: False, UNASKED_MS_MAX + 100)
    assert core.gauges()["payloads"] == 1
    assert not net.host(0).banned


def test_a_stranger_pushes_nothing_and_is_served(rng: np.random.Generator) -> None:
    """Who is no member gets what it asks for, and what it pushes is not even hashed."""
    net = Net(rng, host_count=3, memory=MEMORY)
    net.host(0).core.set_members([net.keys[1]])
    payload = rng.bytes(4 * CHUNK_BYTES)
    net.host(0).core.receive(net.keys[2], nets.flip_chunks(chunk_of(payload, 0), rng), net.now_ms)
    net.turn()
    assert net.host(0).core.counts["refused_unasked"] == 1
    assert not net.host(0).banned
    tree = net.hold(0, payload)
    net.fetch(2, tree.commitment, len(payload), (0,))
    assert net.run(everybody_has(net, tree, [2]))


def test_a_peer_that_acknowledges_nothing_holds_up_nobody(rng: np.random.Generator) -> None:
    """The window bounds what is under way to a silent peer; the others get their payload."""
    net = Net(rng, host_count=4, memory=MEMORY)
    net.cut = {net.keys[3]}
    payload = rng.bytes(20 * CHUNK_BYTES)
    tree = net.hold(0, payload)
    net.push(0, tree)
    for i in (1, 2):
        net.fetch(i, tree.commitment, len(payload), (0,))
    assert net.run(everybody_has(net, tree, [1, 2]), 2_000)
    net.run(lambda: False, 10_000)
    assert net.host(0).core.gauges()["uploads"] == 0
    assert net.host(0).core.counts["chunks_out"] < 3 * 20 + 16
    check_bounds(net)


def test_a_push_does_not_keep_an_asker_waiting(rng: np.random.Generator) -> None:
    """A fetch served beside a push to many gets a fair share of what is sent."""
    net = Net(rng, host_count=8, memory=MEMORY)
    big, small = rng.bytes(20 * CHUNK_BYTES), rng.bytes(2 * CHUNK_BYTES)
    pushed, asked = net.hold(0, big), net.hold(0, small)
    net.push(0, pushed)
    net.fetch(7, asked.commitment, len(small), (0,))
    assert net.run(everybody_has(net, asked, [7]))
    sent = net.host(0).core.counts["chunks_out"]
    assert sent < 7 * chunk_count(len(big)) // 2


def test_memory_gives_way_in_order(rng: np.random.Generator) -> None:
    """Own builds beyond the bound displace what was dropped first, and pinned ones last."""
    net = Net(rng, host_count=2, memory=MEMORY)
    core = net.host(0).core
    trees = []
    for _ in range(5):
        trees.append(net.hold(0, rng.bytes(PAYLOAD_BYTES_MAX - 1)))
    core.drop(trees[3].commitment, net.now_ms)
    trees.append(net.hold(0, rng.bytes(PAYLOAD_BYTES_MAX - 1)))
    trees.append(net.hold(0, rng.bytes(PAYLOAD_BYTES_MAX - 1)))
    held = [core.get(tree.commitment) is not None for tree in trees]
    assert held == [False, True, True, False, True, True, True]
    assert core.counts["dropped_cached_for_room"] == 1
    assert core.counts["dropped_held_for_room"] == 1
    net.fetch(0, Hash32(b"q" * 32), PAYLOAD_BYTES_MAX)
    net.turn()
    assert net.host(0).failed == [b"q" * 32]
    assert core.bytes_held <= HELD_BYTES_MAX


def wish_at_random(
    net: Net, rng: np.random.Generator, payloads: list[bytes], trees: list[ChunkTree]
) -> None:
    """Let one of the four honest hosts hold, push, drop, store or fetch one of the payloads."""
    index, which = int(rng.integers(4)), int(rng.integers(len(trees)))
    host, tree = net.host(index), trees[which]
    wish = int(rng.integers(6))
    if wish == 0:
        net.hold(index, payloads[which])
    elif wish == 1:
        net.push(index, tree)
    elif wish == 2:
        host.core.drop(tree.commitment, net.now_ms)
        host.waiting.discard(tree.commitment)
    elif wish == 3:
        host.executor[nets.block_hash_of(tree.commitment)] = payloads[which]
    elif tree.commitment not in host.waiting:
        host.waiting.add(tree.commitment)
        net.fetch(index, tree.commitment, tree.payload_bytes, (int(rng.integers(5)),))


@pytest.mark.parametrize("trial", range(4))
def test_random_histories_keep_every_bound(trial: int, rng: np.random.Generator) -> None:
    """Any order of wishes, loss and lies: one event per fetch, exact bytes, bounded memory."""
    memory = MemoryLimits.of(
        payload_bytes_max=4 * CHUNK_BYTES, held_bytes_max=8 * CHUNK_BYTES + 20 * CHUNK_BYTES
    )
    net = Net(
        rng,
        host_count=5,
        memory=memory,
        loss_permille=100,
        double_permille=100,
        delay_ms_max=40,
    )
    net.liars[net.keys[4]] = FORGERIES[trial % len(FORGERIES)]
    payloads = [rng.bytes(int(rng.integers(1, 4 * CHUNK_BYTES))) for _ in range(12)]
    trees = [tree_of(payload) for payload in payloads]
    content = {tree.commitment: p for tree, p in zip(trees, payloads, strict=True)}
    for _ in range(300):
        wish_at_random(net, rng, payloads, trees)
        for _ in range(int(rng.integers(4))):
            net.turn()
        for other in net.hosts.values():
            assert other.bytes_held_max <= 28 * CHUNK_BYTES
            for commitment in content:
                assert other.core.get(commitment) in (None, content[commitment])
    net.run(lambda: False, 15_000)
    for i in range(4):
        assert not net.host(i).waiting, "every fetch has its event"
        assert net.host(i).core.gauges()["uploads"] == 0
        assert net.host(i).core.gauges()["fetches"] == 0
        assert set(net.host(i).banned) <= {net.keys[4]}


def test_what_a_liar_pushed_goes_with_it(rng: np.random.Generator) -> None:
    """A ban also forgets what its sender pushed and nobody asked for."""
    net = Net(rng, host_count=3, memory=MEMORY)
    core = net.host(0).core
    core.receive(net.keys[1], chunk_of(b"right" * 20, 0), net.now_ms)
    core.receive(net.keys[2], chunk_of(b"other" * 20, 0), net.now_ms)
    core.receive(net.keys[1], nets.flip_chunks(chunk_of(b"wrong" * 20, 0), rng), net.now_ms)
    net.turn()
    assert set(net.host(0).banned) == {net.keys[1]}
    assert core.gauges()["payloads"] == 1
    net.liars[net.keys[1]] = nets.noise
    check_bounds(net)


def test_another_payload_of_the_executor_is_not_served(rng: np.random.Generator) -> None:
    """A GET with the block of one payload and the commitment of another gets nothing."""
    net = Net(rng, host_count=2, memory=MEMORY)
    wanted = tree_of(b"w" * 100).commitment
    net.host(0).executor[nets.block_hash_of(wanted)] = b"v" * 100
    net.fetch(1, wanted, 100, (0,))
    assert net.run(lambda: bool(net.host(1).failed), 4_000)
    assert not net.host(1).banned
    assert net.keys[1] in net.host(0).banned
    assert net.host(0).core.gauges()["payloads"] == 0


def question(commitment: bytes, payload_bytes: int, first: int = 0, count: int = 1) -> bytes:
    """Return a GET."""
    return frames.encode_get(
        frames.Get(
            block_hash=nets.block_hash_of(commitment),
            commitment=Hash32(commitment),
            payload_bytes=payload_bytes,
            first=first,
            count=count,
        )
    )


def test_readings_are_bounded_per_peer_and_together(rng: np.random.Generator) -> None:
    """An asker of many payloads keeps the executor busy with a few, and no member without room."""
    net = Net(rng, host_count=40, memory=MEMORY)
    core = net.host(0).core
    for count, peer in enumerate(net.keys[1:], 1):
        for number in range(2 * READS_PER_PEER_MAX):
            core.receive(peer, question(peer[:31] + bytes((number,)), 100), net.now_ms)
        full = READS_MAX // READS_PER_PEER_MAX
        begun = READS_PER_PEER_MAX * min(count, full) + max(0, count - full)
        assert core.gauges()["readings"] == begun
    reads = [output for output in core.take_outputs() if isinstance(output, Read)]
    assert len(reads) == begun


def test_who_names_a_block_with_another_payload_is_banned(rng: np.random.Generator) -> None:
    """A block's hash binds its payload: a wrong pair costs the executor one reading."""
    net = Net(rng, host_count=4, memory=MEMORY)
    core, payload = net.host(0).core, rng.bytes(2 * CHUNK_BYTES)
    tree = tree_of(payload)
    wrong = question(tree.commitment[:31] + b"?", len(payload))
    for peer in net.keys[1:3]:
        core.receive(peer, wrong, net.now_ms)
    [read] = [output for output in core.take_outputs() if isinstance(output, Read)]
    core.stored(read.block_hash, read.commitment, (tree, payload), net.now_ms)
    outputs = core.take_outputs()
    assert [output.peer for output in outputs if isinstance(output, Ban)] == net.keys[1:3]
    assert not [output for output in outputs if isinstance(output, SendFrame)]
    core.receive(net.keys[3], question(b"n" * 32, len(payload)), net.now_ms)
    [read] = [output for output in core.take_outputs() if isinstance(output, Read)]
    core.stored(read.block_hash, read.commitment, None, net.now_ms)
    [output] = core.take_outputs()
    assert isinstance(output, SendFrame)


def test_what_one_peer_gets_is_bounded(rng: np.random.Generator) -> None:
    """Who asks for much and acknowledges nothing has a window under way, of few payloads."""
    net = Net(rng, host_count=3, memory=MEMORY)
    core = net.host(0).core
    trees = [net.hold(0, rng.bytes(4 * CHUNK_BYTES)) for _ in range(2 * UPLOADS_PER_PEER_MAX)]
    for tree in trees:
        core.receive(net.keys[1], question(tree.commitment, tree.payload_bytes, 0, 4), net.now_ms)
    assert core.gauges()["uploads"] == UPLOADS_PER_PEER_MAX
    sent = 0
    while core.next_chunk(net.now_ms, lambda peer: True) is not None:
        sent += 1
    assert sent == WINDOW_CHUNKS_MAX
    net.push(0, trees[-1])  # to another one there is room; to the one that is full there is not
    assert core.counts["dropped_pushes"] == 1
    chosen = core.next_chunk(net.now_ms, lambda peer: True)
    assert chosen is not None
    assert chosen[0] == net.keys[2]


def test_strangers_share_a_rate(rng: np.random.Generator) -> None:
    """Beyond the burst all strangers together are sent so many bytes per second; members more."""
    net = Net(rng, host_count=4, memory=MEMORY)
    core = net.host(0).core
    core.set_members([net.keys[1]])
    tree = net.hold(0, rng.bytes(20 * CHUNK_BYTES))
    burst = SERVED_BURST_PAYLOADS * PAYLOAD_BYTES_MAX
    begun_ms, sent = net.now_ms, 0
    while net.now_ms < begun_ms + 2_000:
        for peer in (net.keys[2], net.keys[3]):
            core.receive(peer, question(tree.commitment, tree.payload_bytes, 0, 16), net.now_ms)
            ack = frames.encode_ack(tree.commitment, range(20), is_stop=False)
            while (chosen := core.next_chunk(net.now_ms, lambda peer: True)) is not None:
                sent += len(chosen[1])
                core.receive(chosen[0], ack, net.now_ms)
        core.tick(net.now_ms, net.keys[1:])
        core.take_outputs()
        net.now_ms += 5
    assert burst < sent < burst + 3 * STRANGERS_SERVED_BYTES_PER_S
    core.receive(net.keys[1], question(tree.commitment, tree.payload_bytes), net.now_ms)
    chosen = core.next_chunk(net.now_ms, lambda peer: True)
    assert chosen is not None
    assert chosen[0] == net.keys[1]


def test_a_named_peer_that_is_mute_is_left(rng: np.random.Generator) -> None:
    """A source from which nothing comes is left for one that has the payload."""
    net = Net(rng, host_count=3, memory=MEMORY)
    payload = rng.bytes(9 * CHUNK_BYTES)
    tree = net.hold(2, payload)
    net.hold(0, payload)
    net.mute = {net.keys[0]}
    net.fetch(1, tree.commitment, len(payload), (0,))
    assert net.run(everybody_has(net, tree, [1]), 2 * FETCH_AGAIN_MS + 500)
    net.fetch(1, b"m" * 32, len(payload), (0, 2))
    net.mute = set(net.keys)
    assert net.run(lambda: bool(net.host(1).failed), 2 * FETCH_ROUNDS_MAX * FETCH_AGAIN_MS + 300)
