"""Whole nodes with real loops, threads, disks and keys: they agree, restart, say why they end."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from consensus.core.codec import decode_message, encode_message
from consensus.core.types import Epoch, Kind, PeerId, Request, Want
from consensus.journal import read_journal
from consensus.recovery import JOURNAL_NAME
from engine_api.types import EngineApiError, ErrorCode, NewPayloadAnswer
from tests.consensus.local import Hub, Member, key_pairs, make_chain, wait_until

Make = Callable[..., list[Member]]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Return a way to make a network of validators; all are stopped with the test."""
    made: list[Member] = []

    def some(count: int) -> list[Member]:
        hub, pairs = Hub(), key_pairs(count)
        chain = make_chain(pairs)
        made.extend(Member(hub, chain, pair, tmp_path / str(n)) for n, pair in enumerate(pairs))
        return list(made)

    yield some
    for member in made:
        member.node.stop()
        if member.thread.is_alive():
            member.thread.join(10)


def start(members: list[Member]) -> None:
    """Start all."""
    for member in members:
        member.start()


def reach(members: list[Member], height: int) -> None:
    """Wait until all have a height."""
    wait_until(
        f"height {height}; at {[member.height for member in members]}",
        lambda: all(member.height >= height for member in members),
    )


def check_equal(members: list[Member]) -> None:
    """Every final block that two nodes have is the same, certificates prove the highest."""
    top = min(member.height for member in members)
    assert top > 0
    for height in range(1, top + 1):
        hashes = {member.block(height).block_hash for member in members}
        assert len(hashes) == 1, height


def test_four_nodes_agree_on_blocks_with_transactions(make: Make) -> None:
    """Four nodes finalize the same blocks; what was submitted to one is in them once."""
    members = make(4)
    start(members)
    reach(members, 2)
    record = b"\x01" + bytes(191)
    members[0].engine.submit(record * 3)

    def count() -> int:
        blocks = [members[0].block(height) for height in range(1, members[0].height + 1)]
        return sum(block.header.transaction_count for block in blocks)

    wait_until("three transactions are final", lambda: count() == 3)
    reach(members, members[0].height)
    assert all(member.stop() for member in members)
    for member in members:
        member.make()
    check_equal(members)
    for member in members:
        member.node._disks.close()


def test_three_go_on_without_the_fourth_which_catches_up(make: Make) -> None:
    """A node that stops is not missed; started again on its folder, it has what it lacked."""
    members = make(4)
    start(members)
    reach(members, 2)
    assert members[3].stop()
    reach(members[:3], members[0].height + 5)
    members[3].make()
    behind = members[0].height
    assert members[3].height < behind
    members[3].start()
    reach(members, behind + 3)
    check_equal(members)


def test_two_of_four_make_no_progress_and_no_fork(make: Make) -> None:
    """Without a quorum nothing becomes final; with the third back it goes on."""
    members = make(4)
    start(members)
    reach(members, 2)
    members[2].stop()
    members[3].stop()
    stuck = max(member.height for member in members[:2]) + 2
    time.sleep(1)  # many block intervals
    assert max(member.height for member in members[:2]) <= stuck
    members[2].make()
    members[2].start()
    reach(members[:3], stuck + 2)
    check_equal(members[:3])


def test_all_at_once_lose_nothing(make: Make) -> None:
    """All nodes and executors end and begin again: what was final is final, and it goes on."""
    members = make(4)
    start(members)
    reach(members, 3)
    for member in members:
        member.node.stop()
    assert all(member.stop() for member in members)
    before = {member.pair.public_key: member.height for member in members}
    for member in members:
        member.engine = member.engine.restarted()
        member.make()
        assert member.height == before[member.pair.public_key]
    start(members)
    reach(members, max(before.values()) + 3)
    check_equal(members)


def test_an_executor_that_restarts_is_brought_back(make: Make) -> None:
    """An executor that lost what it had executed gets it again, and its node votes on."""
    members = make(4)
    start(members)
    reach(members, 2)
    engine = members[0].engine.restarted()
    members[0].node.calls._engine = engine
    members[0].payloads.engine = engine
    reach(members, members[0].height + 4)
    wait_until(
        "the new executor follows",
        lambda: engine.get_status().finalized.height >= members[1].height - 4,
    )


def test_calls_that_fail_are_repeated(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """An executor that answers every third NewPayload with an error costs time, no block."""
    members = make(4)
    engine, count = members[0].engine, 0
    judge = engine.new_payload

    def sometimes(*arguments: object) -> NewPayloadAnswer:
        nonlocal count
        count += 1
        if count % 3 == 0:
            raise EngineApiError(ErrorCode.INTERNAL, "a disk stutters")
        return judge(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(engine, "new_payload", sometimes)
    start(members)
    wait_until("many calls", lambda: count >= 9)
    reach(members, members[1].height)
    assert "INTERNAL" in members[0].output.getvalue()
    assert "a disk stutters" in members[0].output.getvalue(), "the executor's own words"


def test_a_call_that_fails_for_long_is_told_less_and_less(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of many failures the first, second, fourth, eighth ... are logged, and then that it works."""
    members = make(4)
    engine, count = members[0].engine, 0
    judge = engine.new_payload

    def full(*arguments: object) -> NewPayloadAnswer:
        nonlocal count
        count += 1
        if count <= 6:
            raise EngineApiError(ErrorCode.RESOURCE_EXHAUSTED, "there is no room")
        return judge(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(engine, "new_payload", full)
    start(members)
    wait_until("it works again", lambda: "is answered again" in members[0].output.getvalue())
    lines = [json.loads(line) for line in members[0].output.getvalue().splitlines()]
    failed = [line for line in lines if line["event"] == "a call failed"]
    told = [line["failures"] for line in failed if line["call"] == "NewPayload"]
    assert told == [1, 2, 4]
    [again] = [line for line in lines if line["event"] == "a call is answered again"]
    assert (again["call"], again["failures"]) == ("NewPayload", 6)


def test_a_part_that_fails_stops_the_node_and_is_told(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that takes no writes ends the node: `run` says False, the log says why."""
    members = make(4)
    start(members)
    reach(members, 1)

    def broken(records: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(members[0].node._disks.journal, "append", broken)
    monkeypatch.setattr(members[0].node._disks.journal, "replace", broken)
    wait_until("the node stops", lambda: not members[0].thread.is_alive())
    assert members[0].results == [False]
    assert "Input/output error" in members[0].node.failure
    assert "a part of the node failed" in members[0].output.getvalue()
    reach(members[1:], members[1].height + 2)


def ask(member: Member, peer: Member, request: Request) -> None:
    """Let a node get a question of a peer as it comes from the network."""
    assert member.inbox.offer(PeerId(peer.pair.public_key), request)


def test_no_question_of_a_peer_stops_a_node(make: Make) -> None:
    """The greatest number of every field, in every question: the node goes on."""
    members = make(4)
    start(members)
    reach(members, 2)
    greatest = 2**64 - 1
    for want in Want:
        request = Request(want=want, epoch=Epoch(greatest), first=greatest, last=greatest)
        assert decode_message(encode_message(request)) == request
        ask(members[0], members[1], request)
    reach(members, members[1].height + 3)
    assert members[0].node.failure == ""


def test_a_row_that_is_damaged_is_not_answered_with(make: Make) -> None:
    """Who asks for a block that the disk has spoiled gets nothing; the node goes on and says so."""
    members = make(4)
    start(members)
    reach(members, 2)
    store = members[0].node.store
    key = (1).to_bytes(8, "big")
    with store._environment.begin(write=True) as transaction:
        value = bytearray(transaction.get(key, db=store._tables["heights"]) or b"")
        value[40] ^= 1
        transaction.put(key, bytes(value), db=store._tables["heights"])
    for _ in range(3):
        ask(members[0], members[1], Request(want=Want.RANGE, first=1))
    reach(members, members[1].height + 3)
    assert members[0].node.failure == ""
    lines = [json.loads(line) for line in members[0].output.getvalue().splitlines()]
    told = [line for line in lines if line["event"] == "a peer is not answered"]
    assert len(told) == 1
    assert "another checksum" in told[0]["why"]


def test_a_validator_that_is_alone_in_its_set_waits_for_nobody(make: Make) -> None:
    """A network of one makes blocks, and its node is ready without a peer."""
    members = make(1)
    start(members)
    reach(members, 2)
    assert members[0].view.not_ready() == ""


def test_a_missing_journal_makes_an_observer(make: Make) -> None:
    """W3: without its journal a node follows and does not vote; the others go on without it."""
    members = make(4)
    (members[0].folder / JOURNAL_NAME).unlink()
    members[0].node._disks.close()
    members[0].make()
    assert members[0].node.role == "observer"
    start(members)
    reach(members, 4)
    assert members[0].view.status()["role"] == "observer"
    assert members[0].node.meter.missed_votes > 0
    records = read_journal(members[0].folder / JOURNAL_NAME).records
    assert not any(record[0] == 2 for record in records), "no own vote was signed"
    assert "observes" in members[0].output.getvalue()


def test_what_a_node_tells_of_itself(make: Make) -> None:
    """Status, headers, certificates, sets and metrics are there, and agree with the store."""
    members = make(4)
    start(members)
    reach(members, 3)
    view, node = members[0].view, members[0].node
    wait_until("the executor follows", lambda: view.status()["executor"]["finalized_height"] > 0)
    status = json.loads(json.dumps(view.status()))
    assert status["finalized"]["height"] >= 3
    assert status["role"] == "validator"
    assert status["executor"]["is_connected"]
    assert {"certificate", "finality", "sync", "NewPayload"} <= status["stage_ms"].keys()
    assert sum(peer["votes"] for peer in status["peers"]) == 3
    block = node.store.block(2)
    assert block is not None
    header, certificate = view.header(2), view.certificate(2)
    assert header is not None
    assert header["hash"] == block.block_hash.hex()
    assert header["header"]["state_hash"] == block.header.state_hash.hex()
    assert certificate is not None
    assert certificate["height"] >= 2
    assert certificate["certificate"]["kind"] == Kind.FINALIZE.name
    assert view.header(10**6) is None
    assert view.certificate(10**6) is None
    assert len(view.validators()["validators"]) == 4
    assert view.evidence() == []
    assert view.not_ready() == ""
    page = view.metrics().decode()
    for name in ("final_blocks_total", "finalized_height", "missed_votes_total", "queue_length"):
        assert f"tos_consensus_{name}" in page, name
    assert json.loads(members[0].output.getvalue().splitlines()[-1])["level"] == "info"
