"""An honest executor in memory, over the toy ledger: every status of the contract, no disk.

It is what consensus is tried against where execution does not matter, and it shows what the
specification asks for in the shortest form. Spec: spec/engine_api.md.
"""

import secrets
import threading
from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass

from engine.errors import InvalidPayload, Reason
from engine.header import Header
from engine_api import checks
from engine_api.protocol import NEVER, Deadline
from engine_api.types import (
    BOOT_ID_BYTES,
    HASH_BYTES,
    HEADER_BYTES,
    RECORD_BYTES,
    BlockId,
    Bodies,
    Body,
    BuiltPayload,
    EngineApiError,
    ErrorCode,
    ForkchoiceAnswer,
    ForkchoiceStatus,
    HealthAnswer,
    NewPayloadAnswer,
    PayloadAnswer,
    PayloadRequest,
    StatusAnswer,
    SubmitAnswer,
    SubmitResult,
    Validator,
    ValidatorSetAnswer,
    Verdict,
    Versions,
)
from tests.engine_api import toy

OWN_BUILDS_MAX = 16
QUEUE_RECORDS_MAX = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A block of the tree."""

    id: BlockId
    parent_hash: bytes
    timestamp_ms: int
    state_hash: bytes
    block: toy.Block | None
    """None for genesis"""


GENESIS = Node(
    id=BlockId(height=0, hash=toy.GENESIS_HASH),
    parent_hash=bytes(HASH_BYTES),
    timestamp_ms=0,
    state_hash=toy.GENESIS_STATE,
    block=None,
)


class FakeEngine:
    """An ExecutionEngine in this process."""

    def __init__(self, finalized: Sequence[Node] = (GENESIS,)) -> None:
        """Start on finalized blocks, from genesis on, with a new boot id."""
        self.boot_id = secrets.token_bytes(BOOT_ID_BYTES)
        self.executed_count = 0
        """payloads that were executed, builds included"""
        self._lock = threading.Condition()
        self._finalized = list(finalized)
        self._head = self._finalized[-1]
        self._above: dict[bytes, Node] = {}
        self._builds: OrderedDict[tuple[object, ...], BuiltPayload] = OrderedDict()
        self._queue: deque[bytes] = deque()

    def restarted(self) -> "FakeEngine":
        """Return the engine after a crash: what was finalized, and nothing else."""
        return FakeEngine(self._finalized)

    def get_status(self, deadline: Deadline = NEVER) -> StatusAnswer:
        """Return where the engine stands."""
        with self._lock:
            blocks = sorted(self._above.values(), key=lambda node: (node.id.height, node.id.hash))
            return StatusAnswer(
                boot_id=self.boot_id,
                genesis_hash=toy.GENESIS_HASH,
                params_hash=toy.PARAMS_HASH,
                finalized=self._finalized[-1].id,
                head=self._head.id,
                unfinalized=tuple(node.id for node in blocks),
                versions=Versions(api=1, header=1, payload=1, state=1, software="fake"),
            )

    def get_payload(self, request: PayloadRequest, deadline: Deadline = NEVER) -> PayloadAnswer:
        """Build on a block what was submitted, within the limits."""
        checks.check_payload_request(request)
        for name in ("bytes", "transactions", "objects"):
            most = getattr(toy.LIMITS, name)
            checks.check_range(f"limits.{name}", getattr(request.limits, name), 0, most)
        with self._lock:
            parent = self._node(request.parent_hash)
            if parent is None:
                return PayloadAnswer(boot_id=self.boot_id, built=None)
            self._check_place(parent, request)
            if not self._queue:
                self._lock.wait(timeout=request.wait_ms / 1_000)
            deadline.check("building")
            room = max(0, request.limits.bytes - len(toy.MAGIC)) // RECORD_BYTES
            count = min(room, request.limits.transactions, request.limits.objects, len(self._queue))
            payload = toy.MAGIC + b"".join(list(self._queue)[:count])
            built = self._execute(parent.state_hash, payload)
            self._builds[build_key(request, built.payload_commitment)] = built
            if len(self._builds) > OWN_BUILDS_MAX:
                self._builds.popitem(last=False)
            return PayloadAnswer(boot_id=self.boot_id, built=built)

    def new_payload(
        self, header: bytes, payload: bytes | memoryview | None, deadline: Deadline = NEVER
    ) -> NewPayloadAnswer:
        """Judge a block in the order of the specification."""
        deadline.check("execution")
        with self._lock:
            parent: Node | None = None
            try:
                if len(header) != HEADER_BYTES:
                    raise InvalidPayload(Reason.HEADER_LENGTH, None, f"{len(header)} bytes")
                fields = Header.decode(header)
                check_header_alone(fields)
                if self._is_known(fields):
                    return self._answer(Verdict.VALID)
                parent = self._node(fields.parent_hash)
                if parent is None:
                    return self._answer(Verdict.SYNCING)
                check_header_on(parent, fields)
                self._check_depth(fields.height)
                return self._judge(parent, header, fields, payload)
            except InvalidPayload as error:
                valid = parent or self._finalized[-1]
                return NewPayloadAnswer(
                    boot_id=self.boot_id,
                    verdict=Verdict.INVALID,
                    reason=error.reason,
                    latest_valid_hash=valid.id.hash,
                    detail=str(error),
                )

    def forkchoice_updated(
        self, head: bytes, safe: bytes, finalized: bytes, deadline: Deadline = NEVER
    ) -> ForkchoiceAnswer:
        """Move the head, finalize, forget what does not descend from finalized."""
        checks.check_forkchoice(head, safe, finalized)
        with self._lock:
            deadline.check("the head moved")
            nodes = [self._node(name) or self._old(name) for name in (head, safe, finalized)]
            if any(node is None for node in nodes):
                return ForkchoiceAnswer(boot_id=self.boot_id, status=ForkchoiceStatus.SYNCING)
            top, middle, bottom = (node for node in nodes if node is not None)
            if bottom.id.height < self._finalized[-1].id.height:
                raise EngineApiError(ErrorCode.CONFLICT, "finalized lies below the executor's")
            if not (self._descends(top, middle) and self._descends(middle, bottom)):
                raise checks.invalid_argument("head descends from safe, and safe from finalized")
            branch, node = [], bottom
            while node is not self._finalized[-1]:
                branch.append(node)
                node = self._parent(node)
            self._above = {
                name: node
                for name, node in self._above.items()
                if node is not bottom and self._descends(node, bottom)
            }
            self._finalized += branch[::-1]
            self._head = top
            return ForkchoiceAnswer(boot_id=self.boot_id, status=ForkchoiceStatus.OK)

    def bodies_by_hash(self, hashes: Sequence[bytes], deadline: Deadline = NEVER) -> Bodies:
        """Return stored blocks."""
        checks.check_hashes(hashes)
        with self._lock:
            return iter([self._body(self._node(name) or self._old(name)) for name in hashes])

    def bodies_by_range(self, first_height: int, count: int, deadline: Deadline = NEVER) -> Bodies:
        """Return finalized blocks."""
        checks.check_heights(first_height, count)
        with self._lock:
            heights = range(first_height, first_height + count)
            final = self._finalized
            return iter([self._body(final[h] if h < len(final) else None) for h in heights])

    def validator_set(self, epoch: int, deadline: Deadline = NEVER) -> ValidatorSetAnswer:
        """Return the one set there is."""
        checks.check_range("epoch", epoch, 0, checks.U64_MAX)
        validators = tuple(Validator(key=bytes([n]) * 32, power=n) for n in range(1, 5))
        return ValidatorSetAnswer(
            boot_id=self.boot_id,
            epoch=epoch,
            validators=validators,
            validator_set_id=toy.digest("set", *(one.key for one in validators)),
        )

    def health(self, deadline: Deadline = NEVER) -> HealthAnswer:
        """Return that all is well."""
        height = self._finalized[-1].id.height
        return HealthAnswer(
            boot_id=self.boot_id, not_serving="", finalized_height=height, free_disk_bytes=2**40
        )

    def submit(self, batch: bytes | memoryview, deadline: Deadline = NEVER) -> SubmitAnswer:
        """Queue records while there is room."""
        checks.check_batch(batch)
        results = bytearray()
        with self._lock:
            for start in range(0, len(batch), RECORD_BYTES):
                item = bytes(batch[start : start + RECORD_BYTES])
                if item[0] != 1:
                    results.append(SubmitResult.REFUSED)
                elif len(self._queue) == QUEUE_RECORDS_MAX:
                    results.append(SubmitResult.QUEUE_FULL)
                else:
                    self._queue.append(item)
                    results.append(SubmitResult.QUEUED)
            self._lock.notify_all()
        return SubmitAnswer(boot_id=self.boot_id, results=bytes(results))

    # The tree; all of these are called under the lock.

    def _node(self, name: bytes) -> Node | None:
        """Return a block that can be built on."""
        tip = self._finalized[-1]
        return tip if name == tip.id.hash else self._above.get(name)

    def _old(self, name: bytes) -> Node | None:
        """Return a finalized block by its hash."""
        return next((node for node in self._finalized if node.id.hash == name), None)

    def _parent(self, node: Node) -> Node:
        parent = self._node(node.parent_hash)
        assert parent is not None, "every block above finalized has its parent here"
        return parent

    def _descends(self, node: Node, ancestor: Node) -> bool:
        while node.id.height > max(ancestor.id.height, self._finalized[-1].id.height):
            node = self._parent(node)
        return node is ancestor

    def _is_known(self, fields: Header) -> bool:
        """Say whether a block was VALID before; raises CONFLICT beside what is finalized."""
        name = fields.block_hash()
        if fields.height > self._finalized[-1].id.height:
            return name in self._above
        if self._finalized[fields.height].id.hash != name:
            raise EngineApiError(ErrorCode.CONFLICT, f"height {fields.height} is finalized")
        return True

    def _check_place(self, parent: Node, request: PayloadRequest) -> None:
        expected = parent.id.height + 1
        checks.check_range("height", request.height, expected, expected)
        time_ms = request.attributes.timestamp_ms
        checks.check_range("timestamp_ms", time_ms, parent.timestamp_ms + 1, checks.U64_MAX)
        self._check_depth(expected)

    def _check_depth(self, height: int) -> None:
        if height - self._finalized[-1].id.height > toy.UNFINALIZED_MAX:
            raise EngineApiError(ErrorCode.DEPTH_EXCEEDED, f"height {height}: finalize first")

    def _execute(self, parent_state: bytes, payload: bytes | memoryview) -> BuiltPayload:
        self.executed_count += 1
        return toy.execute(parent_state, payload)

    def _judge(
        self, parent: Node, header: bytes, fields: Header, payload: bytes | memoryview | None
    ) -> NewPayloadAnswer:
        own = self._builds.get(header_key(fields))
        if payload is None:
            payload = own.payload if own else self._held(fields)
        if len(payload) != fields.payload_bytes:
            return self._answer(Verdict.MALFORMED)
        if toy.commitment(payload) != fields.payload_commitment:
            return self._answer(Verdict.MALFORMED)
        built = own or self._execute(parent.state_hash, payload)
        for reason in (
            Reason.TRANSACTION_COUNT,
            Reason.TRANSACTIONS_ROOT,
            Reason.RECEIPTS_HASH,
            Reason.STATE_HASH,
        ):
            field = reason.name.lower()
            if getattr(built, field) != getattr(fields, field):
                raise InvalidPayload(reason, None, "another result")
        if own:
            mine = set(zip(*[iter(bytes(payload[len(toy.MAGIC) :]))] * RECORD_BYTES, strict=True))
            self._queue = deque(item for item in self._queue if tuple(item) not in mine)
        name = fields.block_hash()
        self._above[name] = Node(
            id=BlockId(height=fields.height, hash=name),
            parent_hash=fields.parent_hash,
            timestamp_ms=fields.timestamp_ms,
            state_hash=fields.state_hash,
            block=toy.Block(header=header, payload=bytes(payload)),
        )
        return self._answer(Verdict.VALID)

    def _held(self, fields: Header) -> bytes | memoryview:
        for node in (*self._above.values(), *self._finalized):
            block = node.block
            if block and block.fields.payload_commitment == fields.payload_commitment:
                return block.payload
        raise EngineApiError(ErrorCode.PAYLOAD_NOT_HELD, "send the payload as a stream")

    def _answer(self, verdict: Verdict) -> NewPayloadAnswer:
        return NewPayloadAnswer(boot_id=self.boot_id, verdict=verdict)

    def _body(self, node: Node | None) -> Body:
        if node is None or node.block is None:
            return Body(boot_id=self.boot_id, header=b"", payload=b"")
        block = node.block
        return Body(boot_id=self.boot_id, header=block.header, payload=block.payload)


def check_header_alone(fields: Header) -> None:
    """Judge what a header says without its parent."""
    if fields.version != 1:
        raise InvalidPayload(Reason.HEADER_VERSION, None, str(fields.version))
    if fields.chain_id != toy.CHAIN_ID:
        raise InvalidPayload(Reason.HEADER_CHAIN_ID, None, str(fields.chain_id))
    most = toy.LIMITS.bytes
    checks.check_range("payload_bytes of the header", fields.payload_bytes, 0, most)


def check_header_on(parent: Node, fields: Header) -> None:
    """Judge what a header says of its place."""
    for reason, passes in (
        (Reason.HEADER_HEIGHT, fields.height == parent.id.height + 1),
        (Reason.HEADER_TIMESTAMP, fields.timestamp_ms > parent.timestamp_ms),
        (Reason.HEADER_SYSTEM, not any(fields.system_hash)),
        (Reason.HEADER_RESERVED, not any(fields.reserved)),
    ):
        if not passes:
            raise InvalidPayload(reason, None, "see the specification")


def build_key(request: PayloadRequest, payload_commitment: bytes) -> tuple[object, ...]:
    """Return by what a build is recognised."""
    attributes = request.attributes
    place = (request.parent_hash, request.height, payload_commitment)
    return (*place, attributes.timestamp_ms, attributes.fee_recipient)


def header_key(fields: Header) -> tuple[object, ...]:
    """Return the same of a header."""
    place = (fields.parent_hash, fields.height, fields.payload_commitment)
    return (*place, fields.timestamp_ms, fields.fee_recipient)
