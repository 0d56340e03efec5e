"""What the writer thread does with chain and store: judge, finalize, recover.

Everything here runs on one thread at a time and never waits for another call. A block that the
vectorised path refuses leaves as a `Suspect`: whoever called has it confirmed by the serial arm and
then says so (`disable_path`), or answers INVALID. Read `service.py` for the calls around it.
Spec: spec/engine_api.md#newpayload, #forkchoiceupdated.
"""

import contextlib
import time
from collections.abc import Callable
from functools import partial

from engine import confirm, header_checks
from engine.chain import Chain, Node
from engine.codec import payload_commitment
from engine.errors import InvalidPayload
from engine.events import BlockExecuted, Finalized, Notice, PathDisabled, Report
from engine.genesis import Genesis, transaction_domain
from engine.header import Header
from engine.own_builds import OwnBuild, OwnBuilds
from engine.store.errors import StoreFull
from engine.store.store import Store
from engine.store.values import AppendTicket, FinalBlock
from engine.transition import (
    BlockContext,
    Execution,
    LedgerRules,
    Outcome,
    StageTimer,
    all_verified,
)
from engine.verdicts import FinalizedBlock, Judged, refused
from engine.verified import VerifiedMarks
from engine_api.checks import invalid_argument
from engine_api.protocol import Deadline
from engine_api.types import EngineApiError, ErrorCode, ForkchoiceStatus, Verdict
from kernels.backend import Backend

STORED_MAX = 1_024
"""Unfinalized blocks in the tree; a status names fewer, and no honest network has as many.

So many blocks of `payload_bytes_max` are what others can make a home keep before a finalization:
refused ones, and those whose call was broken off, are taken back at once, except where a crash came
between.
"""
EXECUTED_PER_DEPTH = 2
"""At most this many times `unfinalized_max` blocks keep their results."""


def open_chain(store: Store, backend: Backend) -> tuple[Chain, int]:
    """Return a chain at the finalized block, and the height of the snapshot that it came from.

    Raises StoreError where no way leads to the finalized state_hash.
    """
    final = store.history(store.finalized.block_hash)
    count = len(store.genesis.account_keys) if final is None else final.delta.count_after
    # Growing copies everything: room for half as many again costs nothing until it is used.
    loaded = store.load_state(backend, capacity=count + count // 2)
    stored = store.block(loaded.finalized.block_hash)
    timestamp_ms: int = store.genesis.timestamp_ms
    if stored is not None:
        timestamp_ms = Header.decode(stored.header).timestamp_ms
    chain = Chain(
        loaded.state,
        block_hash=loaded.finalized.block_hash,
        height=loaded.finalized.height,
        unfinalized_max=store.genesis.parameters.unfinalized_max,
        timestamp_ms=timestamp_ms,
    )
    return chain, loaded.base_height


class Executor:
    """The chain of one home and what moves it."""

    def __init__(
        self,
        store: Store,
        chain: Chain,
        *,
        marks: VerifiedMarks,
        serial: Backend,
        report: Report,
        clock_ns: Callable[[], int] = time.perf_counter_ns,
    ) -> None:
        """Stand at the store's finalized block; `recovery.py` makes one and replays the rest."""
        self.store = store
        self.chain = chain
        self.serial = serial
        self.marks = marks
        self.builds = OwnBuilds()
        self.head = self.safe = chain.finalized.block_hash
        self.degraded = ""
        self.moved: Callable[[Node], None] | None = None
        """is told the head while the state stands on it or above, before blocks beside it go"""
        self.goes_on: Callable[[], None] = lambda: None
        """is told before each of many blocks that are executed in one call"""
        self.tell = report
        """lets a person know"""
        self._clock_ns = clock_ns
        genesis: Genesis = store.genesis
        self.chain_id = genesis.chain_id
        self.genesis = genesis
        self.domain = transaction_domain(store.genesis_hash)
        self.limits = genesis.parameters.limits
        self.rules = LedgerRules(genesis.fee_minimum, genesis.account_minimum, genesis.accounts_max)
        self._commitments: dict[bytes, bytes] = {}
        """payload commitment -> hash of an unfinalized block that has it"""

    def context(self, height: int, fee_recipient: bytes) -> BlockContext:
        """Return what execution takes from the chain and from a header."""
        return BlockContext(
            chain_id=self.chain_id,
            height=height,
            fee_recipient=fee_recipient,
            transaction_domain=self.domain,
            rules=self.rules,
            limits=self.limits,
        )

    # NewPayload

    def judge(
        self,
        fields: Header,
        header: bytes,
        payload: bytes | memoryview | None,
        commitment: bytes | None,
        timer: StageTimer,
        deadline: Deadline,
    ) -> Judged | confirm.Suspect:
        """Judge a block whose header is right by itself, from step 3 of the specification on.

        commitment: that of `payload`, where the caller has it already; timer: of the whole call.
        """
        name = fields.block_hash()
        if name in self.chain or self.is_final(fields.height, name):
            return Judged(verdict=Verdict.VALID)
        if fields.height <= self.chain.finalized.height:
            raise EngineApiError(
                ErrorCode.CONFLICT,
                f"height {fields.height} is final here with another block",
            )
        parent = self.chain.get(fields.parent_hash)
        if parent is None:
            return Judged(verdict=Verdict.SYNCING)
        try:
            header_checks.check_on_parent(parent, fields)
        except InvalidPayload as refusal:
            return refused(refusal, parent.block_hash)
        self.chain.check_depth(fields.height)
        own = self.builds.find(fields)
        start_ns = self._clock_ns()
        held = self._held(name, fields, own) if payload is None else payload
        with timer.stage("commitment"):
            # A payload from here is found by its commitment; own or stored, it was checked then.
            wrong = "" if payload is None else malformed(fields, held, commitment)
        if wrong:
            return Judged(verdict=Verdict.MALFORMED, detail=wrong)
        if len(self.chain) > STORED_MAX:
            raise EngineApiError(
                ErrorCode.RESOURCE_EXHAUSTED,
                f"{STORED_MAX} blocks stand above the finalized one: finalize first",
            )
        deadline.check("execution")
        found = self._accept(parent, fields, header, held, own, timer)
        if isinstance(found, Judged) and found.verdict is Verdict.VALID:
            self.tell(
                BlockExecuted(
                    height=fields.height,
                    block_hash=name,
                    transaction_count=fields.transaction_count,
                    payload_bytes=fields.payload_bytes,
                    stage_ns=timer.ns,
                    total_ns=self._clock_ns() - start_ns,
                    is_own=own is not None,
                )
            )
        return found

    def replay(self, header: bytes, payload: memoryview) -> Judged | confirm.Suspect:
        """Execute a stored block again, everything verified: it may never have been answered."""
        fields = Header.decode(header)
        parent = self.chain.get(fields.parent_hash)
        if parent is None:
            return Judged(verdict=Verdict.SYNCING, detail="its parent is not there")
        return self._accept(parent, fields, header, payload, None, StageTimer())

    def _accept(
        self,
        parent: Node,
        fields: Header,
        header: bytes,
        payload: bytes | memoryview,
        own: OwnBuild | None,
        timer: StageTimer,
    ) -> Judged | confirm.Suspect:
        """Execute a block, or take its own build's results, and wait until it is durable."""
        name = fields.block_hash()
        self.ensure(parent.block_hash)
        ticket: AppendTicket | None = None
        try:
            if own is not None:
                header_checks.check_result(fields, own.outcome)
                ticket = self.store.begin_append(name, header, payload)
                with timer.stage("append"):
                    ticket.wait()
                with timer.stage("redo"):
                    self.chain.adopt(parent.block_hash, own.outcome, name, fields.timestamp_ms)
            else:
                ticket = self.store.begin_append(name, header, payload)
                self.chain.execute(
                    parent.block_hash,
                    payload,
                    self.context(fields.height, fields.fee_recipient),
                    partial(_checked_name, name, fields, ticket, timer),
                    execution=self.execution(timer),
                    timestamp_ms=fields.timestamp_ms,
                )
        except InvalidPayload as refusal:
            self._take_back(ticket, name)
            return self._refused(parent, fields, header, payload, refusal, own is not None)
        except EngineApiError:
            # Its deadline passed: no verdict was given, and it is not in the tree, which counts.
            self._take_back(ticket, name)
            raise
        self._commitments[fields.payload_commitment] = name
        self.trim()
        return Judged(verdict=Verdict.VALID)

    def _take_back(self, ticket: AppendTicket | None, name: bytes) -> None:
        """Let a block go that was appended and not answered VALID.

        Such blocks must fill neither the queue to the disk nor the disk; whether this one found
        room there is of no interest any more. One that was stored before may have been answered
        for: it stays until the next finalization.
        """
        if ticket is None:
            return
        with contextlib.suppress(StoreFull):
            ticket.wait()
            if ticket.is_new:
                self.store.take_back(name)

    def execution(self, timer: StageTimer) -> Execution:
        """Return how payloads are executed here."""
        return Execution(
            timer=timer,
            is_verified=self.marks.is_verified,
            mark_verified=self.marks.mark,
            keeps_parties=True,
        )

    def _refused(
        self,
        parent: Node,
        fields: Header,
        header: bytes,
        payload: bytes | memoryview,
        refusal: InvalidPayload,
        is_own: bool,
    ) -> Judged | confirm.Suspect:
        """Return INVALID, or a suspect where the serial arm has the last word."""
        arm = self.chain.state.backend.name
        if not confirm.needs_confirmation(refusal):
            return refused(refusal, parent.block_hash)
        self.chain.switch(parent.block_hash)
        return confirm.Suspect(
            parent=parent,
            copy=confirm.StateCopy.of(self.chain.state),
            fields=fields,
            header=header,
            payload=payload,
            context=self.context(fields.height, fields.fee_recipient),
            refusal=refusal,
            arm=arm,
            is_own=is_own,
        )

    def _held(self, name: bytes, fields: Header, own: OwnBuild | None) -> bytes | memoryview:
        """Return a payload that is here already; raises PAYLOAD_NOT_HELD."""
        if own is not None and len(own.payload) == fields.payload_bytes:
            return own.payload
        held: bytes | memoryview | None = self.builds.payload(fields)
        for candidate in (name, self._commitments.get(fields.payload_commitment)):
            if held is None and candidate is not None:
                held = self.store.payload(candidate)
        if held is None or len(held) != fields.payload_bytes:
            raise EngineApiError(
                ErrorCode.PAYLOAD_NOT_HELD,
                "the executor does not have this payload: send it as a stream",
            )
        return held

    # ForkchoiceUpdated

    def follow(
        self, head: bytes, safe: bytes, finalized: bytes, deadline: Deadline
    ) -> tuple[ForkchoiceStatus, list[FinalizedBlock]]:
        """Stand on head or above it and finalize; return what became final, lowest first."""
        nodes = [self._find(name) for name in (head, safe, finalized)]
        if any(node is None for node in nodes):
            return ForkchoiceStatus.SYNCING, []
        top, middle, bottom = (node for node in nodes if node is not None)
        if bottom.height < self.chain.finalized.height:
            raise EngineApiError(
                ErrorCode.CONFLICT,
                f"height {bottom.height} is below the finalized height "
                f"{self.chain.finalized.height}",
            )
        is_line = all(node.block_hash in self.chain for node in (top, middle))
        is_line = is_line and self.chain.descends(top, middle)
        if not (is_line and self.chain.descends(middle, bottom)):
            raise invalid_argument("head descends from safe, and safe from finalized")
        deadline.check("the head moved")
        start_ns = self._clock_ns()
        self.ensure(head)
        # Blocks that come ahead of their parent's turn are executed already, and the next will
        # stand on them: to go down to head and up again would cost more than to execute one.
        if not self.chain.descends(self.chain.position, top):
            self.chain.switch(head)
        if self.moved is not None:
            self.moved(top)
        final = self.chain.to_finalize(finalized)
        outcomes = [self.chain.outcome(node.block_hash) for node in final]
        try:
            if final:
                self._finalize(final, outcomes, head, start_ns)
            elif head != self.head:
                self.store.set_head(head)
        except StoreFull:
            self._stay()
            raise
        self.head, self.safe = head, safe
        taken = [
            FinalizedBlock.of(node.height, outcome)
            for node, outcome in zip(final, outcomes, strict=True)
        ]
        return ForkchoiceStatus.OK, taken

    def _stay(self) -> None:
        """Take back that the head moved, before anybody was told: the disk had no room for it."""
        self.ensure(self.head)
        self.chain.switch(self.head)
        if self.moved is not None:
            self.moved(self.chain.node(self.head))

    def _finalize(
        self, final: list[Node], outcomes: list[Outcome], head: bytes, start_ns: int
    ) -> None:
        blocks = [
            FinalBlock(
                block_hash=node.block_hash, changes=outcome.changes, statuses=outcome.statuses
            )
            for node, outcome in zip(final, outcomes, strict=True)
        ]
        abandoned = self.store.finalize(blocks, head)
        highest = final[-1]
        self.chain.finalize(highest.block_hash)
        self.builds.drop_final(highest.height)
        self._commitments = {
            commitment: name for commitment, name in self._commitments.items() if name in self.chain
        }
        self.tell(
            Finalized(
                height=highest.height,
                block_hash=highest.block_hash,
                block_count=len(final),
                abandoned_count=len(abandoned),
                total_ns=self._clock_ns() - start_ns,
            )
        )

    def _find(self, name: bytes) -> Node | None:
        """Return a block of the tree, or one that was finalized before."""
        node = self.chain.get(name)
        if node is not None:
            return node
        stored = self.store.block(name)
        height = 0 if name == self.store.genesis_hash else stored.height if stored else -1
        if not self.is_final(height, name):
            return None
        return Node(block_hash=name, parent_hash=b"", height=height, timestamp_ms=0, state_hash=b"")

    def is_final(self, height: int, name: bytes) -> bool:
        """Say whether a block is the finalized one at its height."""
        if height == 0:
            return name == self.store.genesis_hash
        if not 0 < height <= self.chain.finalized.height:
            return False
        stored = self.store.block_at(height)
        return stored is not None and stored.block_hash == name

    # Results that were dropped, and a path that cannot be trusted

    def ensure(self, name: bytes) -> None:
        """Make the chain able to stand on a block: execute again what was dropped up to it."""
        for node in self.chain.missing(name):
            stored, payload = self.store.block(node.block_hash), self.store.payload(node.block_hash)
            assert stored is not None, "blocks of the tree are stored"
            assert payload is not None, "payloads above finalized are never pruned"
            fields = Header.decode(stored.header)
            context = self.context(fields.height, fields.fee_recipient)
            execution = Execution(is_verified=all_verified, keeps_parties=True)
            self.goes_on()
            self.chain.revive(node, payload, context, execution)

    def trim(self) -> None:
        """Keep the results of at most 2K blocks; of what `ensure` made again, too.

        What is followed stays, if it is in the tree: while that is made again it may not be yet.
        """
        executed_max = EXECUTED_PER_DEPTH * self.genesis.parameters.unfinalized_max
        followed = [name for name in (self.head, self.safe) if name in self.chain]
        self.chain.trim(followed, executed_max)

    def disable_path(self, why: str) -> None:
        """Let the serial arm take over, loudly."""
        if self.chain.state.backend is self.serial:
            return
        self.degraded = f"the vectorised path is off: {why}"
        self.builds = OwnBuilds()
        position = self.chain.position
        state = confirm.StateCopy.of(self.chain.state).open(self.serial)
        if state.state_hash() == position.state_hash:
            self.chain.replace_state(state)
        else:
            self.tell(Notice(text="the resident records are damaged: loading them from disk"))
            self.chain = open_chain(self.store, self.serial)[0]
            self._commitments = {}
            for stored in self.store.unfinalized():
                payload = self.store.payload(stored.block_hash)
                assert payload is not None, "payloads above finalized are never pruned"
                self.goes_on()
                self.replay(stored.header, payload)
            for name in (self.head, self.safe):
                assert name in self.chain, "what was followed is stored"
                self.ensure(name)
        self.tell(PathDisabled(why=self.degraded))


def malformed(fields: Header, payload: bytes | memoryview, commitment: bytes | None = None) -> str:
    """Say how bytes are other ones than the header names, or nothing."""
    if len(payload) != fields.payload_bytes:
        return f"{len(payload)} bytes came and the header says {fields.payload_bytes}"
    found = payload_commitment(payload) if commitment is None else commitment
    if found != fields.payload_commitment:
        return f"the bytes have the commitment {found.hex()}, not the header's"
    return ""


def _checked_name(
    name: bytes, fields: Header, ticket: AppendTicket, timer: StageTimer, outcome: Outcome
) -> bytes:
    """Return the block's hash once its results are right and it is durable."""
    header_checks.check_result(fields, outcome)
    with timer.stage("append"):
        ticket.wait()
    return name
