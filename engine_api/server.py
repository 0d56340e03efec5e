"""The contract on a socket: any ExecutionEngine behind a synchronous gRPC server.

The server judges form and order of messages, tokens, deadlines and bounds; verdicts are the
engine's. Bytes come and go raw and are decoded inside the handlers, so that garbage is
INVALID_ARGUMENT with a sentence. A stream that is cut reaches the engine, if at all, with fewer
bytes than its header names (gRPC may tell of its end before it tells that this was a cut):
MALFORMED, and nobody there to hear it. Spec: spec/engine_api.md.
"""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import NoReturn, TypeVar

import grpc

from engine_api import auth, codec, streams
from engine_api.checks import invalid_argument
from engine_api.chunks import encode_chunks
from engine_api.gate import Gate
from engine_api.protocol import Deadline, ExecutionEngine
from engine_api.tos import engine_pb2 as pb
from engine_api.transport import (
    CHANNEL_OPTIONS,
    ERROR_KEY,
    MS_PER_S,
    SERVICE,
    STATUSES,
    UNIX,
    cannot_listen,
    check_address,
    check_port,
    prepare_folder,
)
from engine_api.types import TIMEOUT_MS_MAX, Bodies, EngineApiError, ErrorCode, SetupError

CALLS_MAX = 64
"""calls in flight, waiting ones included; more are refused by gRPC itself (RESOURCE_EXHAUSTED)"""
PAYLOADS_MAX = 4
"""payloads of the largest size that NewPayload holds in memory at once"""
TIMEOUT_SLACK_MS = 1_000
"""a deadline of exactly TIMEOUT_MS_MAX may look a little farther after rounding"""

Context = grpc.ServicerContext
Q = TypeVar("Q")
Report = Callable[[str, Exception], None]


class EngineApiServer:
    """Serves one engine at one address, from `start` to `stop`."""

    def __init__(
        self,
        engine: ExecutionEngine,
        address: str,
        *,
        payload_bytes_max: int,
        secret: bytes | None = None,
        report: Report,
        clock_s: Callable[[], float] = time.time,
    ) -> None:
        """Prepare; nothing listens yet.

        `secret` is required at a TCP address; at a Unix address it is optional. `report(method,
        error)` is told of every failure that is no EngineApiError; the caller hears INTERNAL.
        """
        check_address(address)
        if secret is None and not address.startswith(UNIX):
            raise SetupError(
                "engine_api.secret_missing",
                what="the Engine API needs a secret here",
                where=address,
                why="every process of this machine can reach a TCP port",
                what_to_do="name the file of a secret, or use a Unix socket",
            )
        self.address = address
        self._engine = engine
        self._secret = secret
        self._report = report
        self._clock_s = clock_s
        self._payload_bytes_max = payload_bytes_max
        self._gate = Gate(PAYLOADS_MAX * payload_bytes_max)
        self._boot_id = b""
        self._server: grpc.Server | None = None

    def start(self) -> str:
        """Listen, and return the address (a port 0 has become a real one). Raises SetupError."""
        assert self._server is None, "a server starts once"
        self._boot_id = self._engine.get_status().boot_id
        if self.address.startswith(UNIX):
            prepare_folder(Path(self.address[len(UNIX) :]))
        else:
            check_port(self.address)
        server = grpc.server(
            ThreadPoolExecutor(CALLS_MAX, thread_name_prefix="engine-api"),
            options=[*CHANNEL_OPTIONS, ("grpc.so_reuseport", 0)],
            maximum_concurrent_rpcs=CALLS_MAX,
        )
        server.add_generic_rpc_handlers((self._handlers(),))
        try:
            port = server.add_insecure_port(self.address)
        except RuntimeError as error:
            # Somebody was faster than `check_port`, or a path cannot be bound.
            raise cannot_listen(self.address, str(error).partition(";")[0]) from error
        if not self.address.startswith(UNIX):
            self.address = f"{self.address.rpartition(':')[0]}:{port}"
        server.start()
        self._server = server
        return self.address

    def stop(self, grace_ms: int = 1_000) -> None:
        """Take no new call, wait so long for those that run, then cut them off."""
        if self._server is not None:
            self._server.stop(grace_ms / MS_PER_S).wait()
            self._server = None

    def __enter__(self) -> "EngineApiServer":
        """Start."""
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop."""
        self.stop()

    def _handlers(self) -> grpc.GenericRpcHandler:
        one, many = self._answer_once, self._answer_stream
        unary, reader = grpc.unary_unary_rpc_method_handler, grpc.stream_unary_rpc_method_handler
        writer = grpc.unary_stream_rpc_method_handler
        handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
            "GetStatus": unary(one("GetStatus", self._get_status)),
            "GetPayload": writer(many("GetPayload", self._get_payload)),
            "NewPayload": reader(one("NewPayload", self._new_payload)),
            "ForkchoiceUpdated": unary(one("ForkchoiceUpdated", self._forkchoice_updated)),
            "GetBodiesByHash": writer(many("GetBodiesByHash", self._bodies_by_hash)),
            "GetBodiesByRange": writer(many("GetBodiesByRange", self._bodies_by_range)),
            "GetValidatorSet": unary(one("GetValidatorSet", self._validator_set)),
            "Health": unary(one("Health", self._health)),
            "Submit": reader(one("Submit", self._submit)),
        }
        assert set(handlers) == set(
            pb.DESCRIPTOR.services_by_name["ExecutionEngine"].methods_by_name
        )
        return grpc.method_handlers_generic_handler(SERVICE, handlers)

    # Around every call: the token, the deadline, and what becomes of errors.

    def _answer_once(
        self, name: str, work: Callable[[Q, Deadline], bytes]
    ) -> Callable[[Q, Context], bytes]:
        def handle(request: Q, context: Context) -> bytes:
            try:
                return work(request, self._begin(context))
            except grpc.RpcError:
                raise  # the stream was cut off: nobody waits for an answer
            except Exception as error:
                failure = self._failure(name, error)
            return self._abort(context, failure)

        return handle

    def _answer_stream(
        self, name: str, work: Callable[[bytes, Deadline], Iterator[bytes]]
    ) -> Callable[[bytes, Context], Iterator[bytes]]:
        def handle(request: bytes, context: Context) -> Iterator[bytes]:
            try:
                yield from work(request, self._begin(context))
            except Exception as error:
                failure = self._failure(name, error)
            else:
                return
            self._abort(context, failure)

        return handle

    def _begin(self, context: Context) -> Deadline:
        if self._secret is not None:
            headers = {item[0]: item[1] for item in context.invocation_metadata()}
            token = headers.get(auth.HEADER)
            auth.check_token(
                token if isinstance(token, str) else None, self._secret, int(self._clock_s())
            )
        remaining_s = context.time_remaining()
        if remaining_s is None or remaining_s * MS_PER_S > TIMEOUT_MS_MAX + TIMEOUT_SLACK_MS:
            raise invalid_argument(
                f"the call has no deadline within {TIMEOUT_MS_MAX} ms; every call has one"
            )
        return Deadline.after_ms(
            int(remaining_s * MS_PER_S), is_cancelled=lambda: not context.is_active()
        )

    def _failure(self, name: str, error: Exception) -> EngineApiError:
        if isinstance(error, EngineApiError):
            return EngineApiError(error.code, error.sentence, boot_id=self._boot_id)
        self._report(name, error)
        sentence = f"{name} failed in the executor ({type(error).__name__}); its log says more"
        return EngineApiError(ErrorCode.INTERNAL, sentence, boot_id=self._boot_id)

    def _abort(self, context: Context, error: EngineApiError) -> NoReturn:
        context.set_trailing_metadata(((ERROR_KEY, codec.encode_error(error)),))
        details = error.sentence.encode("ascii", "replace").decode()
        context.abort(STATUSES[error.code], details)

    # The calls.

    def _get_status(self, request: bytes, deadline: Deadline) -> bytes:
        codec.parse(pb.StatusRequest, request)
        return codec.encode_status(self._engine.get_status(deadline))

    def _get_payload(self, request: bytes, deadline: Deadline) -> Iterator[bytes]:
        answer = self._engine.get_payload(codec.decode_payload_request(request), deadline)
        yield streams.encode_payload_head(answer)
        if answer.built is not None:
            yield from encode_chunks(answer.built.payload)

    def _new_payload(self, parts: Iterator[bytes], deadline: Deadline) -> bytes:
        header, is_stream = streams.read_new_payload_head(parts)
        expected_bytes = 0
        if is_stream:
            expected_bytes = min(streams.announced_bytes(header), self._payload_bytes_max)
        with self._gate.place(expected_bytes):
            payload = None
            if is_stream:
                payload = streams.collect(parts, expected_bytes)
            else:
                streams.expect_end(parts)
            with self._gate.turn(deadline):
                answer = self._engine.new_payload(header, payload, deadline)
        return codec.encode_new_payload(answer)

    def _forkchoice_updated(self, request: bytes, deadline: Deadline) -> bytes:
        head, safe, finalized = codec.decode_forkchoice_request(request)
        return codec.encode_forkchoice(
            self._engine.forkchoice_updated(head, safe, finalized, deadline)
        )

    def _bodies_by_hash(self, request: bytes, deadline: Deadline) -> Iterator[bytes]:
        hashes = codec.decode_hashes(request)
        return self._bodies(self._engine.bodies_by_hash(hashes, deadline), deadline)

    def _bodies_by_range(self, request: bytes, deadline: Deadline) -> Iterator[bytes]:
        first_height, count = codec.decode_heights(request)
        return self._bodies(self._engine.bodies_by_range(first_height, count, deadline), deadline)

    def _bodies(self, bodies: Bodies, deadline: Deadline) -> Iterator[bytes]:
        for body in bodies:
            deadline.check("the next body")
            yield streams.encode_body_head(body)
            yield from encode_chunks(body.payload)

    def _validator_set(self, request: bytes, deadline: Deadline) -> bytes:
        epoch = codec.decode_epoch(request)
        return codec.encode_validator_set(self._engine.validator_set(epoch, deadline))

    def _health(self, request: bytes, deadline: Deadline) -> bytes:
        codec.parse(pb.HealthRequest, request)
        return codec.encode_health(self._engine.health(deadline))

    def _submit(self, parts: Iterator[bytes], deadline: Deadline) -> bytes:
        batch = streams.collect_batch(parts)
        deadline.check("the batch was queued")
        return codec.encode_submit(self._engine.submit(batch, deadline))
