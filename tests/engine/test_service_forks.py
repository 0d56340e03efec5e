"""Random forks, switches, finalizations and restarts: the service follows the oracle throughout."""

import gc
import resource
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from engine.events import Recovered
from engine.store.config import StoreConfig
from engine_api.types import (
    Attributes,
    BlockId,
    ForkchoiceStatus,
    Limits,
    PayloadRequest,
    Verdict,
)
from tests.engine.homes import FEE_RECIPIENT, STORE, Home
from tests.engine_api.toy import Block

DEPTH = 8
MIB = 2**20
SLOW_BLOCKS = 10_000


@dataclass
class Walker:
    """Moves a service at random and knows what it must say."""

    home: Home
    rng: np.random.Generator
    finalized: Block | None = None
    above: dict[bytes, Block] = field(default_factory=dict)
    restart_share: float = 0.01
    salt: int = 0
    sent_count: int = 0

    @property
    def final_height(self) -> int:
        """Height of the finalized block."""
        return self.finalized.height if self.finalized else 0

    @property
    def final_hash(self) -> bytes:
        """Hash of the finalized block."""
        return self.finalized.hash if self.finalized else self.home.maker.hash

    def send(self) -> None:
        """Send a block on a random one, up to 8 deep."""
        shallow: list[Block | None] = [self.finalized]
        shallow += [b for b in self.above.values() if b.height - self.final_height < DEPTH]
        parent = shallow[int(self.rng.integers(len(shallow)))]
        if self.rng.random() < 0.6:
            parent = max(shallow, key=lambda b: b.height if b else 0)
        self.salt += 1
        block = self.home.maker.block(parent, self.salt, int(self.rng.integers(0, 6)))
        for _ in range(1 + int(self.rng.random() < 0.1)):
            answer = self.home.service.new_payload(block.header, block.payload)
            assert answer.verdict is Verdict.VALID, answer
        self.above[block.hash] = block
        self.sent_count += 1

    def follow(self) -> None:
        """Follow a random block; finalize one of its ancestors now and then."""
        if not self.above:
            return
        blocks = list(self.above.values())
        head = blocks[int(self.rng.integers(len(blocks)))]
        line = self.line(head)
        name = self.final_hash
        if self.rng.random() < 0.4 or head.height - self.final_height == DEPTH:
            name = line[int(self.rng.integers(len(line)))].hash
        for _ in range(1 + int(self.rng.random() < 0.1)):
            answer = self.home.service.forkchoice_updated(head.hash, name, name)
            assert answer.status is ForkchoiceStatus.OK
        status = self.home.service.get_status()
        assert status.head == BlockId(height=head.height, hash=head.hash)
        self.finalize(name)

    def finalize(self, name: bytes) -> None:
        """Forget what does not descend from a block that was finalized."""
        if name == self.final_hash:
            return
        chosen = self.above[name]
        self.above = {
            key: block
            for key, block in self.above.items()
            if block is not chosen and chosen in self.line(block)
        }
        self.finalized = chosen
        made = self.home.maker.states
        kept = {name, *self.above}
        for key in [key for key in made if key not in kept]:
            del made[key]

    def line(self, block: Block) -> list[Block]:
        """Return a block and its unfinalized ancestors."""
        line = [block]
        while line[-1].fields.parent_hash in self.above:
            line.append(self.above[line[-1].fields.parent_hash])
        return line

    def check(self) -> None:
        """Compare the status with what was sent."""
        status = self.home.service.get_status()
        assert status.finalized == BlockId(height=self.final_height, hash=self.final_hash)
        assert {block.hash for block in status.unfinalized} <= set(self.above)
        assert len(status.unfinalized) == min(len(self.above), len(status.unfinalized))
        assert len(status.unfinalized) <= 2 * DEPTH
        assert self.home.service.failure == self.home.service.degraded == ""

    def restart(self) -> None:
        """Open the home anew: all blocks are there, and each is VALID without its payload."""
        self.home.restart()
        event = next(e for e in reversed(self.home.events) if isinstance(e, Recovered))
        assert event.finalized_height == self.final_height
        assert event.executed_count == len(self.above)
        for block in self.above.values():
            answer = self.home.service.new_payload(block.header, None)
            assert answer.verdict is Verdict.VALID
        self.home.events.clear()

    def step(self) -> None:
        """Do one thing."""
        chance = self.rng.random()
        if chance < 0.62:
            self.send()
        elif chance < 1 - self.restart_share:
            self.follow()
        else:
            self.restart()
        self.check()


@pytest.fixture
def walker(tmp_path: Path, rng: np.random.Generator) -> Iterator[Walker]:
    """Return a walker in a fresh home."""
    home = Home(tmp_path / "home")
    yield Walker(home, rng)
    home.close()


def test_forks_finalizations_and_restarts(walker: Walker) -> None:
    """Some hundred blocks: every header's state_hash is the oracle's, so VALID says equality."""
    while walker.sent_count < 250:
        walker.step()
    walker.restart()
    walker.check()
    assert walker.final_height > 20
    assert walker.home.store.verify() > 0


def test_dropped_results_come_back(tmp_path: Path) -> None:
    """Of more than 2K blocks the oldest lose their results, and any can still be followed.

    Each of them that is executed again is a sign of life.
    """
    home = Home(tmp_path / "home")
    signs: list[int] = []
    home.service._executor.goes_on = lambda: signs.append(1)
    tips: list[Block] = []
    for salt in range(1, 13):
        parent: Block | None = None
        for _ in range(4):
            parent = home.maker.block(parent, salt)
            answer = home.service.new_payload(parent.header, parent.payload)
            assert answer.verdict is Verdict.VALID
        assert parent is not None
        tips.append(parent)
    assert len(home.service.get_status().unfinalized) == 2 * DEPTH
    genesis = home.maker.hash
    for tip in (*tips, *tips[::-1]):
        followed = home.service.forkchoice_updated(tip.hash, genesis, genesis)
        assert followed.status is ForkchoiceStatus.OK
        assert home.service.get_status().head.hash == tip.hash
        child = home.maker.block(tip, 99)
        assert home.service.new_payload(child.header, child.payload).verdict is Verdict.VALID
        assert len(home.service.get_status().unfinalized) <= 2 * DEPTH
    assert len(signs) > 2 * len(tips)
    home.close()


@pytest.mark.parametrize("way", ["restart", "build", "refuse"])
def test_results_that_come_back_push_others_out(tmp_path: Path, way: str) -> None:
    """At most 2K blocks have results, whoever needed dropped ones again: spec, GetStatus."""
    home = Home(tmp_path / "home")
    tips: list[Block] = []
    for salt in (1, 2, 3):
        parent: Block | None = None
        for _ in range(DEPTH - 1):
            parent = home.maker.block(parent, salt)
            home.service.new_payload(parent.header, parent.payload)
        assert parent is not None
        tips.append(parent)
    genesis, dropped = home.maker.hash, tips[0]
    names = {item.hash for item in home.service.get_status().unfinalized}
    assert dropped.hash not in names
    if way == "restart":
        home.service.forkchoice_updated(dropped.hash, genesis, genesis)
        home.restart()
        assert home.service.get_status().head.hash == dropped.hash
    elif way == "build":
        limits = Limits(bytes=2**20, transactions=1, objects=1)
        attributes = Attributes(timestamp_ms=10**6, fee_recipient=FEE_RECIPIENT)
        asked = PayloadRequest(
            parent_hash=dropped.hash, height=DEPTH, limits=limits, attributes=attributes, wait_ms=0
        )
        assert home.service.get_payload(asked).built is not None
    else:
        bad = home.maker.block(dropped, 1).changed(state_hash=bytes(32))
        assert home.service.new_payload(bad.header, bad.payload).verdict is Verdict.INVALID
    names = {item.hash for item in home.service.get_status().unfinalized}
    assert dropped.hash in names
    assert len(names) == 2 * DEPTH
    home.close()


@pytest.mark.slow
def test_ten_thousand_blocks(tmp_path: Path, rng: np.random.Generator) -> None:
    """Forks and restarts for 10,000 blocks: memory and open files flat, disk within its bound."""
    config = StoreConfig(
        segment_bytes=2**18,
        free_bytes_min=0,
        snapshot_every=500,
        keep_blocks=200,
        max_disk_bytes=64 * MIB,
    )
    assert config.segment_bytes < STORE.segment_bytes
    home = Home(tmp_path / "home", config=config)
    walker = Walker(home, rng, restart_share=0.001)
    usage: list[tuple[int, int]] = []
    while walker.sent_count < SLOW_BLOCKS:
        for _ in range(100):
            walker.step()
        gc.collect()
        usage.append((resident_bytes(), len(list(Path("/proc/self/fd").iterdir()))))
        use = home.store.disk_use()
        assert use.total <= 64 * MIB
    warm, last = usage[len(usage) // 4], usage[-1]
    assert last[0] <= warm[0] + 96 * MIB, usage
    assert last[1] <= warm[1] + 8, usage
    home.close()


def resident_bytes() -> int:
    """Return the memory that this process holds at present."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()
