"""Executors that gossip over sockets of this machine: real services, signatures and connections."""

import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from engine.gossip import core
from engine.gossip.outbox import Outbox
from engine.gossip.runner import GossipConfig, GossipRunner
from engine.pool_rules import PoolStatus
from engine.signing import transaction_hash
from runtime.keypair import KeyPair
from spec import oracle
from tests.engine.homes import Home, Maker

WAIT_S = 60
POLL_S = 0.01


class Executor:
    """A service in a home, and its gossip."""

    def __init__(self, folder: Path, number: int) -> None:
        """Open the home; `listen` and `start` do the rest."""
        self.outbox = Outbox()
        self.home = Home(folder, pool_listener=self.outbox.listen)
        self.pair = KeyPair.of(bytes([number]) * 32)
        self.told: list[tuple[str, Mapping[str, object]]] = []
        self.runner: GossipRunner | None = None

    def open(self, listen: str, peers: dict[bytes, str]) -> GossipRunner:
        """Begin to gossip."""
        config = GossipConfig(
            pair=self.pair, genesis_hash=self.home.maker.hash, listen=listen, peers=peers
        )
        self.runner = GossipRunner(
            self.home.service,
            self.outbox,
            config,
            tell=lambda event, fields: self.told.append((event, fields)),
        )
        self.runner.start()
        return self.runner

    def close(self) -> None:
        """Stop gossip, then the service."""
        self.stop()
        self.home.close()

    def stop(self) -> None:
        """Stop gossip."""
        if self.runner is not None:
            self.runner.stop()
            self.runner = None

    def counts(self) -> dict[str, int]:
        """Return what gossip has counted."""
        assert self.runner is not None, "it gossips"
        return self.runner.counts()

    def is_pending(self, records: list[bytes]) -> bool:
        """Say whether all of these wait."""
        status = self.home.service.status_of
        return all(
            status(transaction_hash(record)).status is PoolStatus.PENDING for record in records
        )


def wait_for(holds: Callable[[], bool]) -> None:
    """Return when something holds; fail when it does not come."""
    end_s = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < end_s, "it does not happen"
        time.sleep(POLL_S)


def has_taken(executor: Executor, count: int) -> bool:
    """Say whether so many transactions of peers came into the pool."""
    return executor.counts()["gossip_records_taken"] == count


def records_of(maker: Maker, count: int, sender: int = 0, first: int = 0) -> list[bytes]:
    """Return signed records of one sender."""
    made = [maker.transaction(sender, nonce, b"\1" * 32) for nonce in range(first, first + count)]
    return [oracle.encode_transaction(item) for item in made]


@pytest.fixture
def three(tmp_path: Path) -> Iterator[list[Executor]]:
    """Return three executors, none of which gossips yet."""
    made = [Executor(tmp_path / str(number), number) for number in (1, 2, 3)]
    yield made
    for executor in made:
        executor.close()


def connect_line(executors: list[Executor]) -> None:
    """Connect A - B - C: the middle one listens and lists both, who dial it."""
    a, b, c = executors
    nowhere = "tcp://127.0.0.1:1"
    at_b = b.open("tcp://127.0.0.1:0", {a.pair.public_key: nowhere, c.pair.public_key: nowhere})
    for end in (a, c):
        end.open("tcp://127.0.0.1:0", {b.pair.public_key: at_b.address})
    wait_for(lambda: len(at_b.connected()) == 2)


def test_a_transaction_sent_to_a_waits_at_c(three: list[Executor]) -> None:
    """Down a line of executors, over two connections, judged once by each; counts say so."""
    connect_line(three)
    a, b, c = three
    records = records_of(a.home.maker, 40)
    a.home.service.admit(b"".join(records))
    wait_for(lambda: c.is_pending(records))
    assert b.is_pending(records)
    for end in (b, c):
        wait_for(partial(has_taken, end, 40))
        counts = end.counts()
        assert counts["gossip_records_refused"] == counts["gossip_records_offending"] == 0
    assert a.counts()["gossip_records_pushed"] == 40


def test_an_executor_that_comes_back_catches_up(
    three: list[Executor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was sent while it was away is asked for by inventory, in both directions, at once."""
    monkeypatch.setattr(core, "INVENTORY_EVERY_MS", 10**9)
    connect_line(three)
    a, b, _ = three
    assert b.runner is not None
    address = b.runner.address
    a.stop()
    of_b, of_a = records_of(a.home.maker, 30, 1), records_of(a.home.maker, 30, 2)
    b.home.service.admit(b"".join(of_b))
    a.home.service.admit(b"".join(of_a))
    a.outbox.take()
    a.open("tcp://127.0.0.1:0", {b.pair.public_key: address})
    wait_for(lambda: a.is_pending(of_b) and b.is_pending(of_a))


def test_a_connection_that_is_replaced_unseen(
    three: list[Executor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """B has no reason to notice that A was away, and asks it all the same for what it lacks."""
    monkeypatch.setattr(core, "INVENTORY_EVERY_MS", 10**9)
    connect_line(three)
    a, b, _ = three
    assert b.runner is not None
    a.stop()
    of_a = records_of(a.home.maker, 30)
    a.home.service.admit(b"".join(of_a))
    a.outbox.take()
    a.open("tcp://127.0.0.1:0", {b.pair.public_key: b.runner.address})
    wait_for(lambda: b.is_pending(of_a))


def test_a_peer_with_bad_signatures_is_banned_and_honest_ones_flow(three: list[Executor]) -> None:
    """C floods B with forged records; B cuts it off and still hears A."""
    connect_line(three)
    a, b, c = three
    assert b.runner is not None
    assert c.runner is not None
    records = np.frombuffer(b"".join(records_of(a.home.maker, 1)), np.uint8)
    forged = np.repeat(records.reshape(1, 192), 5_000, axis=0)
    forged[:, 48:56] = np.arange(1, 5_001, dtype=np.uint64).view(np.uint8).reshape(-1, 8)
    hashes = b.home.service.backend.hash_messages(forged)

    class Forger:
        """A pool that claims to hold what nobody signed."""

        def waits(self, names: np.ndarray) -> np.ndarray:
            """Say yes to everything."""
            return np.ones(len(names), np.bool_)

        def find(self, names: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            """Give forged records."""
            return names, forged[: len(names)]

        def page(self, place: int, count_max: int) -> tuple[np.ndarray, int]:
            """List nothing."""
            return hashes[:0], 0

    c.runner.core._pool = Forger()
    with c.outbox._mutex:
        c.outbox._parts.append(hashes)
        c.outbox._count += len(hashes)
    c.runner._wake.set()
    wait_for(lambda: any(event == "gossip ban" for event, _ in b.told))
    wait_for(lambda: b.runner is not None and b.runner.connected() == {a.pair.public_key})
    honest = records_of(a.home.maker, 20)
    a.home.service.admit(b"".join(honest))
    wait_for(lambda: b.is_pending(honest))
    assert b.counts()["gossip_records_offending"] == 5_000
    assert len(b.home.service.pool) == 20


def test_whoever_is_not_listed_is_not_heard(three: list[Executor]) -> None:
    """A node that lists B, but that B does not list, never connects; nor does another chain's."""
    a, b, c = three
    at_b = b.open("tcp://127.0.0.1:0", {a.pair.public_key: "tcp://127.0.0.1:1"})
    c.open("tcp://127.0.0.1:0", {b.pair.public_key: at_b.address})
    a.open("tcp://127.0.0.1:0", {b.pair.public_key: at_b.address})
    wait_for(lambda: at_b.connected() == {a.pair.public_key})
    wait_for(lambda: at_b.counts().get("gossip_link_refused_stranger", 0) > 0)
    assert c.runner is not None
    assert not c.runner.connected()
