"""Engines that can be held, servers for one test, and bare calls that break the rules."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import pytest

from engine_api import codec
from engine_api.client import EngineApiClient
from engine_api.protocol import NEVER, Deadline
from engine_api.server import EngineApiServer
from engine_api.transport import ERROR_KEY, method_path
from engine_api.types import (
    EngineApiError,
    ErrorCode,
    NewPayloadAnswer,
)
from tests.engine_api import toy
from tests.engine_api.fake import FakeEngine

PATIENCE_S = 20
"""how long a test waits for what must happen; nothing takes that long"""


class HeldEngine(FakeEngine):
    """A fake whose executions wait until the test lets them go."""

    def __init__(self) -> None:
        """Start closed."""
        super().__init__()
        self.entered: list[bytes] = []
        self.payloads_bytes: list[int] = []
        self.started = threading.Semaphore(0)
        self.go = threading.Event()
        self.stopped = threading.Event()
        self.failure: Exception | None = None

    def new_payload(
        self, header: bytes, payload: bytes | memoryview | None, deadline: Deadline = NEVER
    ) -> NewPayloadAnswer:
        """Wait, asking between short stages whether anybody still wants the answer."""
        self.entered.append(header)
        self.payloads_bytes.append(len(payload or b""))
        self.started.release()
        if self.failure is not None:
            raise self.failure
        while not self.go.wait(timeout=0.01):
            if deadline.cancelled():
                self.stopped.set()
            deadline.check("the next stage")
        return super().new_payload(header, payload, deadline)


class Served:
    """A held engine behind a socket, a client, and a bare channel."""

    def __init__(self, address: str, engine: FakeEngine, payload_bytes_max: int) -> None:
        """Serve it."""
        self.failures: list[Exception] = []
        self.server = EngineApiServer(
            engine,
            address,
            payload_bytes_max=payload_bytes_max,
            report=lambda _, error: self.failures.append(error),
        )
        self.server.start()
        self.client = EngineApiClient(address, payload_bytes_max=payload_bytes_max)
        self.channel = grpc.insecure_channel(address)

    def close(self) -> None:
        """Stop it."""
        self.channel.close()
        self.client.close()
        self.server.stop(0)


@contextmanager
def serving(
    address: str, engine: FakeEngine, payload_bytes_max: int = toy.LIMITS.bytes
) -> Iterator[Served]:
    """Serve an engine for one test."""
    served = Served(address, engine, payload_bytes_max)
    try:
        yield served
    finally:
        if isinstance(engine, HeldEngine):
            engine.go.set()
        served.close()


def send(client: EngineApiClient, block: toy.Block, timeout_ms: int = 60_000) -> NewPayloadAnswer:
    """Send a block."""
    return client.new_payload(block.header, block.payload, Deadline.after_ms(timeout_ms))


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for what must become true."""
    tick = threading.Event()
    for _ in range(PATIENCE_S * 100):
        if condition():
            return
        tick.wait(0.01)
    raise AssertionError("it never became true")


def explained(raised: Any) -> tuple[grpc.StatusCode, EngineApiError | None]:
    """Return the status of a gRPC error, and the contract's error in its trailing metadata."""
    found = [value for key, value in raised.trailing_metadata() or () if key == ERROR_KEY]
    return raised.code(), codec.decode_error(found[0]) if found else None


def error_of(call: Callable[[], object]) -> tuple[grpc.StatusCode, EngineApiError | None]:
    """Return the same of the error that a bare call raises."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return explained(caught.value)


def answers(client: EngineApiClient) -> bool:
    """Say whether an executor is there and lets a call in."""
    try:
        client.health()
    except EngineApiError as error:
        if error.code in (ErrorCode.UNAVAILABLE, ErrorCode.RESOURCE_EXHAUSTED):
            return False
        raise
    return True


def upload(channel: grpc.Channel, name: str) -> Any:
    """Return a bare call that sends a stream of messages."""
    return channel.stream_unary(method_path(name))


def ask(channel: grpc.Channel, name: str) -> Any:
    """Return a bare call that sends one message."""
    return channel.unary_unary(method_path(name))


def download(channel: grpc.Channel, name: str) -> Callable[..., list[bytes]]:
    """Return a bare call that reads a whole stream."""
    call: Any = channel.unary_stream(method_path(name))
    return lambda *args, **options: list(call(*args, **options))
