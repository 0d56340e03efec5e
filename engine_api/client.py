"""The executor as seen from another process: an ExecutionEngine whose calls travel over a socket.

Nothing is retried here: every call is idempotent, and the caller knows whether it still wants it
(`EngineApiError.retry`). Of a deadline only its time travels; NEVER becomes TIMEOUT_MS_MAX.
Spec: spec/engine_api.md.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any

import grpc

from engine_api import auth, checks, codec, streams
from engine_api.protocol import NEVER, Deadline
from engine_api.tos import engine_pb2 as pb
from engine_api.transport import (
    CHANNEL_OPTIONS,
    CODES,
    ERROR_KEY,
    MS_PER_S,
    check_address,
    method_path,
)
from engine_api.types import (
    RECORD_BYTES,
    TIMEOUT_MS_MAX,
    Bodies,
    Body,
    EngineApiError,
    ErrorCode,
    ForkchoiceAnswer,
    HealthAnswer,
    NewPayloadAnswer,
    PayloadAnswer,
    PayloadRequest,
    StatusAnswer,
    SubmitAnswer,
    ValidatorSetAnswer,
)

OPTIONS = (
    *CHANNEL_OPTIONS,
    ("grpc.enable_retries", 0),
    ("grpc.enable_http_proxy", 0),
    # An executor that comes back is found within a second, however long it was away.
    ("grpc.initial_reconnect_backoff_ms", 50),
    # Also the time that one attempt to connect may take: a busy machine needs more than a moment.
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.use_local_subchannel_pool", 1),
)


class EngineApiClient:
    """An ExecutionEngine over one channel; safe to use from many threads, closed by `close`."""

    def __init__(
        self,
        address: str,
        *,
        payload_bytes_max: int,
        secret: bytes | None = None,
        clock_s: Callable[[], float] = time.time,
    ) -> None:
        """Prepare; the channel connects with the first call. Raises SetupError for the address."""
        check_address(address)
        self._address = address
        self._payload_bytes_max = payload_bytes_max
        self._secret = secret
        self._clock_s = clock_s
        self._channel = grpc.insecure_channel(address, options=list(OPTIONS))
        self._calls: dict[str, Any] = {
            name: self._make_call(method.client_streaming, method.server_streaming, name)
            for name, method in pb.DESCRIPTOR.services_by_name[
                "ExecutionEngine"
            ].methods_by_name.items()
        }

    def close(self) -> None:
        """Cut what runs, and disconnect."""
        self._channel.close()

    def __enter__(self) -> "EngineApiClient":
        """Return the client itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close."""
        self.close()

    def get_status(self, deadline: Deadline = NEVER) -> StatusAnswer:
        """Return which chain the executor works for, and where it stands."""
        return codec.decode_status(self._ask("GetStatus", b"", deadline))

    def get_payload(self, request: PayloadRequest, deadline: Deadline = NEVER) -> PayloadAnswer:
        """Build a payload on a block."""
        data = codec.encode_payload_request(request)
        parts = self._stream("GetPayload", data, deadline)
        try:
            return streams.read_payload_answer(parts, self._payload_bytes_max)
        finally:
            parts.close()

    def new_payload(
        self,
        header: bytes,
        payload: bytes | memoryview | None,
        deadline: Deadline = NEVER,
    ) -> NewPayloadAnswer:
        """Judge a block and make it durable; `payload` None: the executor holds it already."""
        parts = streams.encode_new_payload(header, payload)
        return codec.decode_new_payload(self._ask("NewPayload", parts, deadline))

    def forkchoice_updated(
        self, head: bytes, safe: bytes, finalized: bytes, deadline: Deadline = NEVER
    ) -> ForkchoiceAnswer:
        """Stand on head, make finalized irreversible and durable."""
        data = codec.encode_forkchoice_request(head, safe, finalized)
        return codec.decode_forkchoice(self._ask("ForkchoiceUpdated", data, deadline))

    def bodies_by_hash(self, hashes: Sequence[bytes], deadline: Deadline = NEVER) -> Bodies:
        """Return stored blocks, one per hash, in their order."""
        data = codec.encode_hashes(list(hashes))
        return self._bodies("GetBodiesByHash", data, len(hashes), deadline)

    def bodies_by_range(self, first_height: int, count: int, deadline: Deadline = NEVER) -> Bodies:
        """Return `count` finalized blocks from `first_height` on."""
        data = codec.encode_heights(first_height, count)
        return self._bodies("GetBodiesByRange", data, count, deadline)

    def validator_set(self, epoch: int, deadline: Deadline = NEVER) -> ValidatorSetAnswer:
        """Return who decides the blocks of an epoch."""
        data = codec.encode_epoch(epoch)
        return codec.decode_validator_set(self._ask("GetValidatorSet", data, deadline))

    def health(self, deadline: Deadline = NEVER) -> HealthAnswer:
        """Return whether the executor serves."""
        return codec.decode_health(self._ask("Health", b"", deadline))

    def submit(self, batch: bytes | memoryview, deadline: Deadline = NEVER) -> SubmitAnswer:
        """Offer transactions: records of 192 bytes, one after another."""
        checks.check_batch(batch)
        data = self._ask("Submit", streams.encode_batch(batch), deadline)
        return codec.decode_submit(data, len(batch) // RECORD_BYTES)

    def _make_call(self, client_streams: bool, server_streams: bool, name: str) -> object:
        assert not (client_streams and server_streams), "the contract has no such call"
        path = method_path(name)
        if client_streams:
            return self._channel.stream_unary(path)
        return (
            self._channel.unary_stream(path) if server_streams else self._channel.unary_unary(path)
        )

    def _ask(self, name: str, request: bytes | Iterator[bytes], deadline: Deadline) -> bytes:
        options = self._options(name, deadline)
        try:
            answer = self._calls[name](request, **options)
        except grpc.RpcError as error:
            raise self._explained(error) from error
        assert isinstance(answer, bytes)
        return answer

    def _stream(self, name: str, request: bytes, deadline: Deadline) -> "_Parts":
        return _Parts(self._calls[name](request, **self._options(name, deadline)), self._explained)

    def _bodies(self, name: str, request: bytes, count: int, deadline: Deadline) -> Iterator[Body]:
        parts = self._stream(name, request, deadline)
        try:
            for _ in range(count):
                yield streams.read_body(parts, self._payload_bytes_max)
            if next(parts, None) is not None:
                raise codec.broken_answer(f"more than {count} bodies came")
        finally:
            parts.close()

    def _options(self, name: str, deadline: Deadline) -> dict[str, Any]:
        deadline.check(f"{name} was sent")
        remaining_ms = deadline.remaining_ms()
        timeout_ms = TIMEOUT_MS_MAX if remaining_ms is None else min(remaining_ms, TIMEOUT_MS_MAX)
        metadata: tuple[tuple[str, str], ...] = ()
        if self._secret is not None:
            metadata = ((auth.HEADER, auth.make_token(self._secret, int(self._clock_s()))),)
        return {"timeout": timeout_ms / MS_PER_S, "metadata": metadata}

    def _explained(self, error: grpc.RpcError) -> EngineApiError:
        """Return the contract's error for one of gRPC; its trailing metadata says it exactly."""
        assert isinstance(error, grpc.Call), error
        for key, value in error.trailing_metadata() or ():
            if key == ERROR_KEY and isinstance(value, bytes):
                explained = codec.decode_error(value)
                if explained is not None:
                    return explained
        code = CODES.get(error.code(), ErrorCode.INTERNAL)
        return EngineApiError(code, f"{self._address}: {error.details()}")


class _Parts:
    """The messages of one answer; errors become the contract's, and closing it cuts the call."""

    def __init__(self, call: Any, explained: Callable[[grpc.RpcError], EngineApiError]) -> None:
        self._call = call
        self._explained = explained

    def __iter__(self) -> "_Parts":
        return self

    def __next__(self) -> bytes:
        try:
            part = next(self._call)
        except grpc.RpcError as error:
            raise self._explained(error) from error
        assert isinstance(part, bytes)
        return part

    def close(self) -> None:
        self._call.cancel()
