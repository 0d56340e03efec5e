"""Readers beside the writer: every account at every followed block, and never half of a change."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.executor import Executor
from engine.types import AT
from engine.views import AccountRead, Changing, Views
from tests.engine.homes import Home
from tests.engine_api.toy import Block

READ_ATTEMPTS = 60_000
READ_PAUSE_S = 0.001
PAUSE = threading.Event()


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """Open a fresh home."""
    opened = Home(tmp_path / "home")
    yield opened
    opened.close()


def settled(views: Views, key: bytes, at: Any) -> AccountRead | None:
    """Read until no change is under way."""
    for _ in range(READ_ATTEMPTS):
        try:
            return views.read(key, at)
        except Changing:
            PAUSE.wait(READ_PAUSE_S)
    raise AssertionError("the writer never rested")


def test_every_account_at_every_followed_block(home: Home, rng: np.random.Generator) -> None:
    """On random forks, reads at head, safe and finalized are what the oracle says of them."""
    maker, service = home.maker, home.service
    blocks: dict[bytes, Block | None] = {maker.hash: None}
    keys = {account.key for account in maker.accounts(None)}
    for salt in range(60):
        views = service.views
        final = views.standing.blocks["finalized"]
        chain = service.ask("a look", lambda executor: executor.chain)
        names = [name for name in blocks if name in chain]
        parent = blocks[names[int(rng.integers(len(names)))]]
        if parent is None or parent.height < final.height + 8:
            block = maker.block(parent, salt)
            service.new_payload(block.header, block.payload)
            blocks[block.hash] = block
            keys |= {account.key for account in maker.accounts(block)}
        if salt % 3 == 0:
            names = [name for name in blocks if name in chain]
            head = chain.node(names[int(rng.integers(len(names)))])
            line = [head]
            while line[-1] is not chain.finalized:
                line.append(chain.node(line[-1].parent_hash))
            middle = int(rng.integers(len(line)))
            low = int(rng.integers(middle, len(line)))
            service.forkchoice_updated(
                head.block_hash, line[middle].block_hash, line[low].block_hash
            )
        for at in AT:
            made = maker.accounts(blocks[service.views.standing.blocks[at].block_hash])
            slots = {account.key: slot for slot, account in enumerate(made)}
            for key in sorted(keys):
                read = service.views.read(key, at)
                assert (read is None) == (key not in slots)
                if read is not None:
                    expected = made[slots[key]]
                    assert read.slot == slots[key]
                    assert (read.balance, read.nonce) == (expected.balance, expected.nonce)


def test_a_reader_never_sees_half_of_a_change(home: Home) -> None:
    """While blocks are executed, every read of an account has a state that a block led to."""
    maker, service = home.maker, home.service
    chain: list[Block] = []
    for salt in range(40):
        chain.append(maker.block(chain[-1] if chain else None, salt, count=20))
    legal = {
        account.key: {
            (made.balance, made.nonce)
            for block in [None, *chain]
            for made in maker.accounts(block)
            if made.key == account.key
        }
        for account in maker.accounts(None)
    }
    seen: set[tuple[bytes, int, int]] = set()
    is_over = threading.Event()

    def look() -> None:
        while not is_over.is_set():
            for key in legal:
                read = settled(service.views, key, "head")
                assert read is not None
                seen.add((key, read.balance, read.nonce))

    reader = threading.Thread(target=look)
    reader.start()
    for block in chain:
        service.new_payload(block.header, block.payload)
        service.forkchoice_updated(block.hash, block.hash, block.fields.parent_hash)
    is_over.set()
    reader.join()
    assert all((balance, nonce) in legal[key] for key, balance, nonce in seen)
    assert seen


def test_records_that_have_moved_are_not_read_before_it_is_said(home: Home) -> None:
    """Between a move of the state and its publication no account is read at any block."""
    maker, service = home.maker, home.service
    block = maker.block(None, 1, 20)
    service.new_payload(block.header, block.payload)
    service.forkchoice_updated(block.hash, maker.hash, maker.hash)
    keys = [account.key for account in maker.accounts(block)]
    before = {(key, at): service.views.read(key, at) for key in keys for at in AT}
    assert any(before[key, "head"] != before[key, "safe"] for key in keys)

    def look(executor: Executor) -> None:
        for to in (executor.chain.position.parent_hash, block.hash):
            executor.chain.switch(to)
            for key, at in before:
                with pytest.raises(Changing):
                    service.views.read(key, at)

    service.ask("a look while it moves", look)
    assert {(key, at): service.views.read(key, at) for key, at in before} == before
