"""Engines, drivers and sockets for the tests of the contract."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from engine_api.client import EngineApiClient
from engine_api.protocol import ExecutionEngine
from engine_api.server import EngineApiServer
from engine_api.types import BlockId, Limits
from tests.engine_api import toy
from tests.engine_api.fake import FakeEngine
from tests.engine_api.sockets import HeldEngine


class ToyDriver:
    """Drives a FakeEngine in this process."""

    genesis = BlockId(height=0, hash=toy.GENESIS_HASH)
    limits: Limits = toy.LIMITS
    unfinalized_max = toy.UNFINALIZED_MAX
    fee_recipient: bytes = toy.FEE_RECIPIENT

    def __init__(self) -> None:
        """Start at genesis."""
        self.fake = FakeEngine()

    @property
    def engine(self) -> ExecutionEngine:
        """The engine under test."""
        return self.fake

    def block(self, parent: toy.Block | None, salt: int) -> toy.Block:
        """Return a valid block."""
        return toy.make_block(parent, salt)

    def commitment(self, payload: bytes) -> bytes:
        """Return the commitment of any bytes."""
        return toy.commitment(payload)

    def records(self, count: int) -> bytes:
        """Return records that can be included."""
        return b"".join(toy.record(10**12 + index) for index in range(count))

    def restart(self) -> None:
        """Keep what is final."""
        self.fake = self.fake.restarted()


class SocketDriver(ToyDriver):
    """Drives a FakeEngine through a client and a server."""

    def __init__(self, address: str) -> None:
        """Start at genesis, and serve."""
        super().__init__()
        self.failures: list[Exception] = []
        self._stack = ExitStack()
        self._address = address
        self._client = self._serve()

    @property
    def engine(self) -> ExecutionEngine:
        """The client."""
        return self._client

    def restart(self) -> None:
        """Stop the server, and start another one at the same address."""
        self.close()
        super().restart()
        self._client = self._serve()

    def close(self) -> None:
        """Stop."""
        self._stack.close()

    def _serve(self) -> EngineApiClient:
        server = EngineApiServer(
            self.fake,
            self._address,
            payload_bytes_max=toy.LIMITS.bytes,
            report=lambda _, error: self.failures.append(error),
        )
        address = self._stack.enter_context(server).address
        client = EngineApiClient(address, payload_bytes_max=toy.LIMITS.bytes)
        return self._stack.enter_context(client)


@pytest.fixture
def address(tmp_path: Path) -> str:
    """Return where a server may listen."""
    return f"unix:{tmp_path}/api/engine.sock"


@pytest.fixture
def toy_driver() -> ToyDriver:
    """Return an engine in this process."""
    return ToyDriver()


@pytest.fixture
def socket_driver(address: str) -> Iterator[SocketDriver]:
    """Return an engine behind a socket."""
    driver = SocketDriver(address)
    yield driver
    driver.close()
    assert driver.failures == []


@pytest.fixture
def held() -> HeldEngine:
    """Return an engine that executes when it is let go."""
    return HeldEngine()
