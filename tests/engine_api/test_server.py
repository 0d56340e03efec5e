"""The server under many callers: its queue, deadlines, failures, addresses and tokens."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from engine_api import auth, streams
from engine_api.client import EngineApiClient
from engine_api.protocol import NEVER, Deadline
from engine_api.server import PAYLOADS_MAX, EngineApiServer
from engine_api.types import (
    CHUNK_BYTES_MAX,
    WAITING_MAX,
    Bodies,
    EngineApiError,
    ErrorCode,
    NewPayloadAnswer,
    SetupError,
    Verdict,
)
from tests.engine_api import toy
from tests.engine_api.conftest import ToyDriver
from tests.engine_api.driver import refused, request_on
from tests.engine_api.fake import FakeEngine
from tests.engine_api.sockets import (
    PATIENCE_S,
    HeldEngine,
    Served,
    answers,
    send,
    serving,
    upload,
    wait_until,
)

SECRET = bytes(range(32))


def tcp_server(address: str, clock_s: Callable[[], float] = lambda: 1e9) -> EngineApiServer:
    """Return a server with a secret."""
    return EngineApiServer(
        FakeEngine(),
        address,
        payload_bytes_max=2**20,
        secret=SECRET,
        report=lambda _, error: None,
        clock_s=clock_s,
    )


def has_queue(served: Served, length: int) -> bool:
    """Say whether so many calls of NewPayload execute or wait."""
    return len(served.server._gate._queue) == length


def test_payloads_of_20_mb_go_both_ways(address: str, toy_driver: ToyDriver) -> None:
    """Many chunks, the last one short: the same bytes arrive."""
    engine = toy_driver.fake
    block = toy.make_block(None, 1, record_count=104_857)
    assert len(block.payload) % CHUNK_BYTES_MAX
    with serving(address, engine) as served:
        assert send(served.client, block).verdict is Verdict.VALID
        for body in served.client.bodies_by_hash([block.hash, block.hash]):
            assert body.payload == block.payload
        engine.submit(toy_driver.records(3))
        built = served.client.get_payload(request_on(toy_driver, None)).built
        assert built is not None
        assert built.transaction_count == 3


def test_bodies_can_be_left_in_the_middle(address: str) -> None:
    """Closing the iterator ends the call."""
    engine = FakeEngine()
    block = toy.make_block(None, 1, record_count=60_000)
    engine.new_payload(block.header, block.payload)
    with serving(address, engine) as served:
        bodies = served.client.bodies_by_hash([block.hash] * 20)
        assert next(bodies).is_found
        bodies.close()  # type: ignore[attr-defined]  # the client's iterator is a generator
        assert served.client.health().not_serving == ""


@pytest.mark.parametrize("more", [-1, 1])
def test_as_many_bodies_come_as_were_asked_for(address: str, more: int) -> None:
    """An executor that sends one less, or one more, has not answered."""

    class Miscounting(FakeEngine):
        def bodies_by_hash(self, hashes: Sequence[bytes], deadline: Deadline = NEVER) -> Bodies:
            return super().bodies_by_hash([bytes(32)] * (len(hashes) + more), deadline)

    with serving(address, Miscounting()) as served:
        bodies = served.client.bodies_by_hash([bytes(32)] * 3)
        assert [next(bodies).is_found for _ in range(2)] == [False, False]
        error = refused(lambda: list(bodies))
        assert error.code is ErrorCode.INTERNAL


def test_one_executes_and_sixteen_wait(address: str, held: HeldEngine) -> None:
    """The next one is refused at once, and all who waited come in the order of arrival."""
    blocks = [toy.make_block(None, salt) for salt in range(1, WAITING_MAX + 3)]
    with serving(address, held) as served, ThreadPoolExecutor(len(blocks)) as pool:
        running: list[Future[NewPayloadAnswer]] = []
        for count, block in enumerate(blocks[:-1]):
            running.append(pool.submit(send, served.client, block))
            wait_until(partial(has_queue, served, count + 1))
        error = refused(lambda: send(served.client, blocks[-1]))
        assert error.code is ErrorCode.RESOURCE_EXHAUSTED
        assert error.boot_id == held.boot_id
        assert served.client.health().not_serving == "", "control calls do not wait"
        assert held.entered == [blocks[0].header]
        held.go.set()
        assert all(one.result(PATIENCE_S).verdict is Verdict.VALID for one in running)
        assert held.entered == [block.header for block in blocks[:-1]]
        assert send(served.client, blocks[-1]).verdict is Verdict.VALID


def test_payloads_in_memory_are_bounded(address: str, held: HeldEngine) -> None:
    """Announced bytes count from the head of a stream on, and are given back."""
    block = toy.make_block(None, 1)
    large = block.changed(payload_bytes=len(block.payload))
    most = len(block.payload)
    with serving(address, held, most) as served, ThreadPoolExecutor(PAYLOADS_MAX) as pool:
        running = [pool.submit(send, served.client, large) for _ in range(PAYLOADS_MAX)]
        wait_until(lambda: len(served.server._gate._queue) == PAYLOADS_MAX)
        error = refused(lambda: send(served.client, large))
        assert error.code is ErrorCode.RESOURCE_EXHAUSTED
        held.go.set()
        assert all(one.result(PATIENCE_S).verdict is Verdict.VALID for one in running)
        assert send(served.client, large).verdict is Verdict.VALID


def test_a_call_that_waited_past_its_deadline_is_dropped(address: str, held: HeldEngine) -> None:
    """It never reaches the engine, also when its turn comes later."""
    first, second = toy.make_block(None, 1), toy.make_block(None, 2)
    with serving(address, held) as served, ThreadPoolExecutor(2) as pool:
        running = pool.submit(send, served.client, first)
        assert held.started.acquire(timeout=PATIENCE_S)
        error = refused(lambda: send(served.client, second, timeout_ms=100))
        assert error.code is ErrorCode.DEADLINE_EXCEEDED
        wait_until(lambda: len(served.server._gate._queue) == 1)
        held.go.set()
        assert running.result(PATIENCE_S).verdict is Verdict.VALID
        assert send(served.client, first).verdict is Verdict.VALID
        assert second.header not in held.entered
        assert [block.hash for block in held.get_status().unfinalized] == [first.hash]


def test_a_running_call_stops_between_stages(address: str, held: HeldEngine) -> None:
    """When its caller gives up nothing has changed, and the next call runs."""
    block = toy.make_block(None, 1)
    with serving(address, held) as served:
        parts = streams.encode_new_payload(block.header, block.payload)
        future = upload(served.channel, "NewPayload").future(parts, timeout=PATIENCE_S)
        assert held.started.acquire(timeout=PATIENCE_S)
        future.cancel()
        assert held.stopped.wait(PATIENCE_S)
        wait_until(partial(has_queue, served, 0))
        assert held.get_status().unfinalized == ()
        held.go.set()
        assert send(served.client, block).verdict is Verdict.VALID


def test_a_failure_of_the_executor_is_no_verdict(address: str, held: HeldEngine) -> None:
    """INTERNAL to the caller without inner details, the exception itself to the process."""
    block = toy.make_block(None, 1)
    held.failure = RuntimeError("the disk says no")
    with serving(address, held) as served:
        error = refused(lambda: send(served.client, block))
        assert error.code is ErrorCode.INTERNAL
        assert "RuntimeError" in error.sentence
        assert "disk" not in error.sentence
        assert served.failures == [held.failure]
        held.failure = None
        held.go.set()
        assert send(served.client, block).verdict is Verdict.VALID


@pytest.mark.parametrize("sentence", ["%" * 600, "\u20ac" * 600, "\x00\n\r", "\U0001f600" * 600])
def test_every_sentence_arrives(address: str, held: HeldEngine, sentence: str) -> None:
    """Errors of the engine travel with code, sentence and boot id, whatever they say."""
    held.failure = EngineApiError(ErrorCode.DEPTH_EXCEEDED, sentence)
    with serving(address, held) as served:
        error = refused(lambda: send(served.client, toy.make_block(None, 1)))
        assert error.code is ErrorCode.DEPTH_EXCEEDED
        assert error.sentence == held.failure.sentence
        assert error.boot_id == held.boot_id


def test_an_executor_that_is_away_comes_back(address: str) -> None:
    """UNAVAILABLE while nobody listens; the same client goes on when somebody does."""
    with EngineApiClient(address, payload_bytes_max=2**20) as client:
        error = refused(client.health)
        assert (error.code, error.boot_id) == (ErrorCode.UNAVAILABLE, b"")
        for _ in range(2):
            engine = FakeEngine()
            with serving(address, engine):
                wait_until(lambda: answers(client))
                assert client.health().boot_id == engine.boot_id
        assert not answers(client)


def test_two_servers_never_share_an_address(
    address: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """The second one is told, on a path and on a port, in one message; the first one goes on."""
    with serving(address, FakeEngine()) as served:
        with pytest.raises(SetupError, match="socket_in_use"):
            Served(address, FakeEngine(), 1)
        assert served.client.health().not_serving == ""
    with tcp_server("127.0.0.1:0") as taken, pytest.raises(SetupError, match="address_in_use"):
        tcp_server(taken.address).start()
    assert capfd.readouterr().err == ""


def test_over_tcp_a_token_decides() -> None:
    """The right secret and time pass; others hear why, before anything of theirs is read."""
    with pytest.raises(SetupError, match="secret_missing"):
        EngineApiServer(
            FakeEngine(), "127.0.0.1:0", payload_bytes_max=1, report=lambda _, error: None
        )
    block = toy.make_block(None, 1)
    with tcp_server("127.0.0.1:0") as server:
        for secret, now_s, word in (
            (SECRET, 1_000_000_000, ""),
            (SECRET, 1_000_000_060, ""),
            (SECRET, 1_000_000_061, "61 s ahead of"),
            (bytes(32), 1_000_000_000, "another secret"),
            (None, 1_000_000_000, "no authorization header"),
        ):
            client = EngineApiClient(
                server.address,
                payload_bytes_max=2**20,
                secret=secret,
                clock_s=partial(float, now_s),
            )
            with client:
                if not word:
                    assert send(client, block).verdict is Verdict.VALID
                    continue
                for call in (client.get_status, partial(send, client, block)):
                    error = refused(call)
                    assert error.code is ErrorCode.UNAUTHENTICATED
                    assert word in error.sentence


def test_a_unix_socket_can_ask_for_a_token(tmp_path: Path) -> None:
    """The secret is optional there, and checked where it is given."""
    with tcp_server(f"unix:{tmp_path}/api/engine.sock") as server:
        with EngineApiClient(server.address, payload_bytes_max=1) as client:
            assert refused(client.health).code is ErrorCode.UNAUTHENTICATED
        assert auth.make_token(SECRET, 10**9).startswith(auth.SCHEME)
        with EngineApiClient(
            server.address, payload_bytes_max=1, secret=SECRET, clock_s=lambda: 1e9
        ) as client:
            assert client.health().not_serving == ""
