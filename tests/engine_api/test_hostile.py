"""The socket under callers that are cut off, silent, endless, or no callers at all."""

import socket
import threading
from collections.abc import Iterator
from functools import partial
from typing import Any

import grpc
import numpy as np
import pytest

from engine_api import codec, server, streams
from engine_api.chunks import encode_chunks
from engine_api.tos import engine_pb2 as pb
from engine_api.transport import STATUSES, UNIX
from engine_api.types import (
    CHUNK_BYTES_MAX,
    Attributes,
    EngineApiError,
    ErrorCode,
    PayloadRequest,
    Verdict,
)
from tests.engine_api import toy
from tests.engine_api.driver import refused
from tests.engine_api.fake import FakeEngine
from tests.engine_api.sockets import (
    PATIENCE_S,
    HeldEngine,
    answers,
    ask,
    download,
    error_of,
    explained,
    send,
    serving,
    upload,
    wait_until,
)

MESSAGES_COUNT = 600
"""spoiled requests that one test sends"""


def test_a_stream_that_is_cut_never_happened(address: str, held: HeldEngine) -> None:
    """By cancelling, by closing the channel, by falling silent: nothing done, no place kept."""
    held.go.set()
    block = toy.make_block(None, 1, record_count=20_000)
    parts = list(streams.encode_new_payload(block.header, block.payload))
    with serving(address, held) as served:
        for way in ("cancel", "close", "silence"):
            channel = grpc.insecure_channel(
                address, options=[("grpc.use_local_subchannel_pool", 1)]
            )
            sent, never = threading.Event(), threading.Event()

            def half(sent: threading.Event = sent, never: threading.Event = never) -> Iterator[Any]:
                yield from parts[:2]
                sent.set()
                never.wait()

            call = upload(channel, "NewPayload")
            timeout_s = 0.3 if way == "silence" else PATIENCE_S
            future = call.future(half(), timeout=timeout_s)
            assert sent.wait(PATIENCE_S)
            if way == "silence":
                assert future.exception(PATIENCE_S) is not None
            else:
                wait_until(lambda: served.server._gate._places == 1)
                (future.cancel if way == "cancel" else channel.close)()
            wait_until(lambda: served.server._gate._places == 0)
            never.set()
            channel.close()
        # gRPC may tell of the end before it tells that it was a cut.
        assert all(length < len(block.payload) for length in held.payloads_bytes)
        assert held.get_status().unfinalized == ()
        assert served.server._gate._bytes == 0
        assert send(served.client, block).verdict is Verdict.VALID


def test_a_silent_stream_does_not_hold_the_others_up(address: str, held: HeldEngine) -> None:
    """The turn is taken when a payload is complete, not when it begins."""
    held.go.set()
    block = toy.make_block(None, 1)
    never = threading.Event()

    def silent() -> Iterator[bytes]:
        yield next(streams.encode_new_payload(block.header, block.payload))
        never.wait()

    with serving(address, held) as served:
        future = upload(served.channel, "NewPayload").future(silent(), timeout=60)
        wait_until(lambda: served.server._gate._places == 1)
        assert send(served.client, block).verdict is Verdict.VALID
        future.cancel()
        never.set()


def test_an_endless_stream_is_stopped(address: str) -> None:
    """A client that sends more than payload_bytes hears MALFORMED, and is not read on."""
    block = toy.make_block(None, 1)
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        yield next(streams.encode_new_payload(block.header, b""))
        for chunk in encode_chunks(bytes(CHUNK_BYTES_MAX)):
            while sent < 4_000:
                sent += 1
                yield chunk

    with serving(address, FakeEngine()) as served:
        call = upload(served.channel, "NewPayload")
        answer = codec.decode_new_payload(call(endless(), timeout=PATIENCE_S))
        assert answer.verdict is Verdict.MALFORMED
        assert sent < 100, "4 GB were on their way"
        assert send(served.client, block).verdict is Verdict.VALID


@pytest.mark.parametrize(
    "data", [b"\xff" * 50, b"", bytes(100_000)], ids=["noise", "empty", "long"]
)
def test_garbage_in_every_method_is_explained(address: str, data: bytes) -> None:
    """INVALID_ARGUMENT with a sentence and the boot id, or an answer; never anything else."""
    engine = FakeEngine()
    service = pb.DESCRIPTOR.services_by_name["ExecutionEngine"]
    with serving(address, engine) as served:
        for name, method in service.methods_by_name.items():
            if method.client_streaming:
                call = partial(upload(served.channel, name), iter([data]))
            elif method.server_streaming:
                call = partial(download(served.channel, name), data)
            elif data or name == "ForkchoiceUpdated":
                call = partial(ask(served.channel, name), data)
            else:
                continue
            status, error = error_of(partial(call, timeout=PATIENCE_S))
            assert status is grpc.StatusCode.INVALID_ARGUMENT
            assert error is not None
            assert error.code is ErrorCode.INVALID_ARGUMENT
            assert error.boot_id == engine.boot_id
            assert error.sentence
        assert served.failures == []


def test_streams_out_of_order_are_refused(address: str) -> None:
    """Nothing at all, a chunk first, a second head, chunks after ALREADY_HELD, records missing."""
    block = toy.make_block(None, 1)
    head, *chunks = streams.encode_new_payload(block.header, block.payload)
    named = next(streams.encode_new_payload(block.header, None))
    batch = list(streams.encode_batch(toy.record(1) * 2))
    short = next(iter(encode_chunks(toy.record(1))))
    with serving(address, FakeEngine()) as served:
        for name, parts in (
            ("NewPayload", []),
            ("NewPayload", chunks),
            ("NewPayload", [head, head]),
            ("NewPayload", [named, *chunks]),
            ("Submit", []),
            ("Submit", batch[1:]),
            ("Submit", batch[:1]),
            ("Submit", [batch[0], short]),
            ("Submit", [*batch, short]),
        ):
            call = upload(served.channel, name)
            status, error = error_of(partial(call, iter(parts), timeout=PATIENCE_S))
            assert status is grpc.StatusCode.INVALID_ARGUMENT
            assert error is not None
        assert served.client.get_status().unfinalized == ()
        assert send(served.client, block).verdict is Verdict.VALID


def test_a_message_that_grpc_refuses_is_an_error_of_the_contract(address: str) -> None:
    """Beyond what gRPC takes, and a method that does not exist."""
    with serving(address, FakeEngine()) as served:
        unary = ask(served.channel, "GetStatus")
        status, _ = error_of(lambda: unary(bytes(3 * CHUNK_BYTES_MAX), timeout=5))
        assert status is grpc.StatusCode.RESOURCE_EXHAUSTED
        other = ask(served.channel, "GetMoney")
        assert error_of(lambda: other(b"", timeout=5))[0] is grpc.StatusCode.UNIMPLEMENTED
        assert served.client.health().not_serving == ""


def test_every_call_has_a_deadline(address: str) -> None:
    """None, or one too far away, is refused."""
    with serving(address, FakeEngine()) as served:
        unary = ask(served.channel, "GetStatus")
        for timeout_s in (None, 3_600):
            status, error = error_of(partial(unary, b"", timeout=timeout_s))
            assert status is grpc.StatusCode.INVALID_ARGUMENT
            assert error is not None
            assert "deadline" in error.sentence


def test_bytes_that_are_no_http_leave_the_server_alone(
    address: str, rng: np.random.Generator
) -> None:
    """Noise, half a greeting, a flood: connections end, calls go on."""
    path = address[len(UNIX) :]
    greeting = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    with serving(address, FakeEngine()) as served:
        for data in (rng.bytes(5_000), greeting[:10], greeting + rng.bytes(5_000), bytes(10**6)):
            with socket.socket(socket.AF_UNIX) as raw:
                raw.connect(path)
                raw.settimeout(PATIENCE_S)
                try:
                    raw.sendall(data)
                    raw.shutdown(socket.SHUT_WR)
                    while raw.recv(65_536):
                        continue
                except (BrokenPipeError, ConnectionResetError):
                    continue
        assert served.client.health().not_serving == ""
        assert served.failures == []


def legal_messages() -> dict[str, list[bytes]]:
    """Return one legal request per method, as the messages of its stream."""
    block = toy.make_block(None, 1)
    request = PayloadRequest(
        parent_hash=toy.GENESIS_HASH,
        height=1,
        limits=toy.LIMITS,
        attributes=Attributes(timestamp_ms=1, fee_recipient=toy.FEE_RECIPIENT),
        wait_ms=0,
    )
    genesis = toy.GENESIS_HASH
    return {
        "GetStatus": [b""],
        "GetPayload": [codec.encode_payload_request(request)],
        "NewPayload": list(streams.encode_new_payload(block.header, block.payload)),
        "ForkchoiceUpdated": [codec.encode_forkchoice_request(genesis, genesis, genesis)],
        "GetBodiesByHash": [codec.encode_hashes([genesis, block.hash])],
        "GetBodiesByRange": [codec.encode_heights(1, 2)],
        "GetValidatorSet": [codec.encode_epoch(0)],
        "Health": [b""],
        "Submit": list(streams.encode_batch(toy.record(1))),
    }


def spoil(messages: list[bytes], rng: np.random.Generator) -> list[bytes]:
    """Return messages with a few bytes changed, cut, repeated or in another order."""
    spoiled = [bytearray(message) for message in messages]
    for message in spoiled:
        for _ in range(int(rng.integers(3))):
            if message:
                message[int(rng.integers(min(len(message), 500)))] = int(rng.integers(256))
        if rng.integers(8) == 0:
            del message[int(rng.integers(len(message) + 1)) :]
    order = rng.permutation(len(spoiled)) if rng.integers(4) == 0 else range(len(spoiled))
    return [bytes(spoiled[int(index)]) for index in order]


def test_spoiled_messages_are_answered_or_explained(address: str, rng: np.random.Generator) -> None:
    """Legal requests with small damage, in every method: an answer, or a code of the contract."""
    legal, engine = legal_messages(), FakeEngine()
    failed: list[tuple[grpc.StatusCode, EngineApiError | None]] = []
    service = pb.DESCRIPTOR.services_by_name["ExecutionEngine"].methods_by_name
    with serving(address, engine) as served:
        for _ in range(MESSAGES_COUNT):
            name = sorted(legal)[int(rng.integers(len(legal)))]
            messages = spoil(legal[name], rng)
            if service[name].client_streaming:
                call = partial(upload(served.channel, name), iter(messages))
            elif service[name].server_streaming:
                call = partial(download(served.channel, name), messages[0])
            else:
                call = partial(ask(served.channel, name), messages[0])
            try:
                call(timeout=PATIENCE_S)
            except grpc.RpcError as raised:
                failed.append(explained(raised))
        assert all(error is not None and STATUSES[error.code] is code for code, error in failed)
        assert 0 < len(failed) < MESSAGES_COUNT
        assert served.failures == []
        block = toy.make_block(None, 2)
        assert send(served.client, block).verdict is Verdict.VALID


def test_calls_beyond_the_most_are_refused(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """gRPC itself refuses them, the client gives that its code, and later calls are served."""
    monkeypatch.setattr(server, "CALLS_MAX", 2)
    held = HeldEngine()
    with serving(address, held) as served:
        parts = [
            list(streams.encode_new_payload(block.header, block.payload))
            for block in (toy.make_block(None, 1), toy.make_block(None, 2))
        ]
        call = upload(served.channel, "NewPayload")
        running = [call.future(iter(one), timeout=PATIENCE_S) for one in parts]
        wait_until(lambda: len(served.server._gate._queue) == 2)
        error = refused(served.client.health)
        assert (error.code, error.boot_id) == (ErrorCode.RESOURCE_EXHAUSTED, b"")
        held.go.set()
        for future in running:
            codec.decode_new_payload(future.result(PATIENCE_S))
        wait_until(lambda: answers(served.client))
