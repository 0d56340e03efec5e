"""A replay finds what it must: both arms agree with a right chain, and with nothing else."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench.end_to_end_blocks import ChainBlocks, make_chain
from bench.network import replay
from bench.network.replay import Block, Chain, Differs, OracleArm, Result, SerialArm
from engine.codec import payload_commitment
from engine.header import Header
from engine.types import Hash32
from engine_api.server import EngineApiServer
from engine_api.types import EngineApiError, ErrorCode
from kernels.backend import Backend, open_backend
from tests.engine_api.fake import FakeEngine

COUNT = 4
PER_BLOCK = 60


@pytest.fixture(scope="module")
def made() -> ChainBlocks:
    """Return a short chain with real signatures."""
    return make_chain(accounts=50, per_block=PER_BLOCK, blocks=COUNT, seed=3)


@pytest.fixture(scope="module")
def backend() -> Iterator[Backend]:
    """Return the serial backend."""
    found = open_backend("serial")
    yield found
    found.close()


def blocks_of(made: ChainBlocks) -> list[Block]:
    """Return the chain as a replay gets it."""
    return [
        (height, header, bytes(payload))
        for height, (header, payload) in enumerate(
            zip(made.headers, made.payloads, strict=True), start=1
        )
    ]


def execute_serial(made: ChainBlocks, backend: Backend, blocks: list[Block]) -> Result:
    """Replay with the serial arm, verified ahead by two threads as the command does."""
    result = Result()
    arm = SerialArm(Chain(made.genesis), result, backend)
    with ThreadPoolExecutor(2) as pool:
        replay.serial_take(arm, pool)(iter(blocks))
    return result


def test_both_arms_agree_with_a_right_chain(made: ChainBlocks, backend: Backend) -> None:
    """Every block is executed, every signature judged by the serial arm, some by the oracle."""
    blocks = blocks_of(made)
    result = execute_serial(made, backend, blocks)
    assert (result.height, result.transactions) == (COUNT, COUNT * PER_BLOCK)
    assert result.signatures == COUNT * PER_BLOCK
    judged = Result()
    arm = OracleArm(Chain(made.genesis), judged)
    for block in blocks[:2]:
        assert arm.execute(block) == PER_BLOCK
    assert judged.height == 2
    assert judged.signatures >= 2 * replay.ORACLE_SIGNATURES


def other_state(block: Block) -> Block:
    """Name another state."""
    header = Header.decode(block[1])
    return block[0], replace(header, state_hash=Hash32(b"\7" * 32)).encode(), block[2]


def other_receipts(block: Block) -> Block:
    """Name other receipts."""
    header = Header.decode(block[1])
    return block[0], replace(header, receipts_hash=Hash32(b"\7" * 32)).encode(), block[2]


def other_bytes(block: Block) -> Block:
    """Change the payload under its commitment."""
    return block[0], block[1], block[2][:-1] + bytes([block[2][-1] ^ 1])


def other_signature(block: Block) -> Block:
    """Change a signature, and commit to the changed bytes."""
    payload = np.frombuffer(block[2], np.uint8).copy()
    payload[len(payload) - 64 * 8 : len(payload) - 64 * 8 + 8] ^= 1
    data = payload.tobytes()
    header = replace(Header.decode(block[1]), payload_commitment=payload_commitment(data))
    return block[0], header.encode(), data


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (other_state, "state_hash"),
        (other_receipts, "receipts_hash"),
        (other_bytes, "payload_commitment"),
        (other_signature, "signature"),
    ],
)
def test_what_was_changed_is_named(
    made: ChainBlocks, backend: Backend, change: Callable[[Block], Block], words: str
) -> None:
    """A block that is not what genesis and payloads lead to stops the replay at its height."""
    blocks = blocks_of(made)
    blocks[1] = change(blocks[1])
    with pytest.raises(Differs, match=f"height 2.*{words}"):
        execute_serial(made, backend, blocks)
    arm = OracleArm(Chain(made.genesis), Result())
    arm.execute(blocks[0])
    if change is not other_signature:  # the oracle looks at some signatures only
        with pytest.raises(Differs, match="height 2"):
            arm.execute(blocks[1])


def test_a_gap_is_found(made: ChainBlocks, backend: Backend) -> None:
    """A header that does not follow the one before is refused."""
    blocks = blocks_of(made)
    with pytest.raises(Differs, match="does not follow"):
        execute_serial(made, backend, [blocks[0], blocks[2]])


def test_the_oracle_sees_enough(tmp_path: Path) -> None:
    """Twenty heights and some with transactions, or sixty where nothing is sent."""
    assert not replay.oracle_is_done(replay.ORACLE_HEIGHTS - 1, 9)
    assert not replay.oracle_is_done(replay.ORACLE_HEIGHTS, replay.ORACLE_LOADED - 1)
    assert replay.oracle_is_done(replay.ORACLE_HEIGHTS, replay.ORACLE_LOADED)
    assert replay.oracle_is_done(replay.ORACLE_HEIGHTS_MAX, 0)


def test_a_block_that_nobody_has_ends_the_asking(tmp_path: Path) -> None:
    """Executors that answer without it are asked in turn, and not for ever."""
    engine = FakeEngine()
    with EngineApiServer(
        engine, f"unix:{tmp_path}/api/e.sock", payload_bytes_max=2**20, report=lambda *_: None
    ) as server:
        blocks = replay.from_engines([server.address] * 2, 1, 2, 2**20)
        with pytest.raises(EngineApiError) as caught:
            list(blocks)
    assert caught.value.code is ErrorCode.UNAVAILABLE
