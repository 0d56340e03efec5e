"""Any order of calls, twice, with restarts in between: a state machine against a plain model."""

import shutil
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from engine_api.protocol import Deadline
from engine_api.types import (
    Attributes,
    EngineApiError,
    ErrorCode,
    ForkchoiceStatus,
    Limits,
    PayloadRequest,
    Verdict,
)
from spec import oracle
from tests.engine.homes import FEE_RECIPIENT, Home, Maker, key_pair
from tests.engine_api.driver import refused
from tests.engine_api.toy import Block

DEPTH = 8
MAKER = Maker()
"""One for all runs: it makes the same blocks again without work."""


def pool() -> list[Block]:
    """Return a fixed tree of blocks: three branches from genesis, with branches of their own."""
    blocks: list[Block] = []
    for salt in (1, 2, 3):
        parent: Block | None = None
        for height in range(1, 7):
            parent = MAKER.block(parent, salt, 2)
            blocks.append(parent)
            if height in (2, 4):
                blocks.append(MAKER.block(parent, salt + 10, 2))
    return blocks


class Orders(RuleBasedStateMachine):
    """Calls the service and the model, and compares."""

    def __init__(self) -> None:
        """Start without a home; `begin` makes it."""
        super().__init__()
        self.blocks = pool()
        self.folder = Path(tempfile.mkdtemp(prefix="tos-orders-"))
        self.final: list[bytes] = [MAKER.hash]
        self.head: bytes = MAKER.hash
        self.given: dict[bytes, Block] = {}
        """blocks whose call was given up: they may be on disk, and VALID after a restart"""
        self.valid: dict[bytes, Block] = {}
        self.nonce = 0

    @initialize()
    def begin(self) -> None:
        """Open a fresh home."""
        self.home = Home(self.folder / "home", MAKER)

    def teardown(self) -> None:
        """Close and remove the home."""
        if hasattr(self, "home"):
            self.home.close()
        shutil.rmtree(self.folder)

    def line(self, name: bytes) -> list[bytes]:
        """Return a valid block's hash and those of its ancestors down to the finalized one."""
        line = [name]
        while line[-1] in self.valid:
            line.append(self.valid[line[-1]].fields.parent_hash)
        return line

    def expected(self, block: Block) -> Verdict | ErrorCode:
        """Return what NewPayload must say of a good block."""
        if block.hash in self.valid or block.hash in self.final:
            return Verdict.VALID
        if block.height < len(self.final):
            return ErrorCode.CONFLICT
        parent = block.fields.parent_hash
        if parent not in self.valid and parent != self.final[-1]:
            return Verdict.SYNCING
        return Verdict.VALID

    @rule(index=st.integers(0, 23), is_held=st.booleans())
    def new_payload(self, index: int, is_held: bool) -> None:
        """Send a good block, with or without its bytes."""
        block = self.blocks[index]
        expected = self.expected(block)
        is_known = block.hash in self.valid or block.hash in self.final
        if is_held and expected is Verdict.VALID and not is_known:
            expected = ErrorCode.PAYLOAD_NOT_HELD
            if self.home.store.block(block.hash) is not None:
                expected = Verdict.VALID
        payload = None if is_held else block.payload
        try:
            found: Verdict | ErrorCode = self.home.service.new_payload(
                block.header, payload
            ).verdict
        except EngineApiError as error:
            found = error.code
        assert found is expected
        if found is Verdict.VALID and not is_known:
            self.valid[block.hash] = block

    @rule(index=st.integers(0, 23))
    def spoiled(self, index: int) -> None:
        """Send a block with another result: INVALID where it would be judged, and not kept."""
        block = self.blocks[index].changed(receipts_hash=bytes(32))
        expected = self.expected(block)
        if expected is Verdict.VALID:
            expected = Verdict.INVALID
        try:
            found: Verdict | ErrorCode = self.home.service.new_payload(
                block.header, block.payload
            ).verdict
        except EngineApiError as error:
            found = error.code
        assert found is expected

    @rule(index=st.integers(0, 23), questions=st.integers(0, 9))
    def given_up(self, index: int, questions: int) -> None:
        """Give a call up somewhere: it changes nothing, or it is done whole."""
        block = self.blocks[index]
        left = [questions]

        def is_cancelled() -> bool:
            left[0] -= 1
            return left[0] < 0

        try:
            answer = self.home.service.new_payload(
                block.header, block.payload, Deadline(is_cancelled=is_cancelled)
            )
        except EngineApiError as error:
            found: Verdict | ErrorCode = error.code
        else:
            found = answer.verdict
        if found is ErrorCode.DEADLINE_EXCEEDED:
            self.given[block.hash] = block
            return
        assert found is self.expected(block)
        if found is Verdict.VALID and block.hash not in self.final:
            self.valid[block.hash] = block

    @rule(choice=st.integers(0, 30), back=st.integers(0, 6), safe=st.integers(0, 6))
    def follow(self, choice: int, back: int, safe: int) -> None:
        """Follow a valid block and finalize one of its ancestors, or itself."""
        names = [self.final[-1], *self.valid]
        head = names[choice % len(names)]
        line = self.line(head)
        finalized = line[min(back, len(line) - 1)]
        middle = line[min(safe, back, len(line) - 1)]
        for _ in range(2):
            answer = self.home.service.forkchoice_updated(head, middle, finalized)
            assert answer.status is ForkchoiceStatus.OK
        self.head = head
        newly = line[line.index(finalized) : -1]
        self.final += newly[::-1]
        self.valid = {
            name: block
            for name, block in self.valid.items()
            if name != finalized and finalized in self.line(name)
        }

    @rule(index=st.integers(0, 23))
    def follow_unknown(self, index: int) -> None:
        """A hash that was never VALID is SYNCING, or CONFLICT where it is final no more."""
        name = self.blocks[index].hash
        if name in self.valid or name in self.final:
            return
        answer = self.home.service.forkchoice_updated(name, name, name)
        assert answer.status is ForkchoiceStatus.SYNCING

    @rule(index=st.integers(0, 23))
    def follow_below(self, index: int) -> None:
        """An old finalized block is no finalized block any more: CONFLICT."""
        name = self.blocks[index].hash
        if name not in self.final[:-1]:
            return
        error = refused(lambda: self.home.service.forkchoice_updated(self.head, self.head, name))
        assert error.code is ErrorCode.CONFLICT

    @rule(count=st.integers(1, 3))
    def build_own(self, count: int) -> None:
        """Submit, build on the finalized block, and propose what was built."""
        service = self.home.service
        parent: Block | None = None
        if len(self.final) > 1:
            body = next(iter(service.bodies_by_hash([self.final[-1]])))
            parent = Block(header=body.header, payload=body.payload)
        state = {account.key: account for account in MAKER.accounts(parent)}
        made = [
            MAKER.transaction(n, state[key_pair(n)[0]].nonce, bytes([self.nonce % 256, n]) * 16)
            for n in range(count)
        ]
        self.nonce += 1
        service.submit(b"".join(oracle.encode_transaction(item) for item in made))
        height = len(self.final)
        attributes = Attributes(timestamp_ms=1_000 * height + 999, fee_recipient=FEE_RECIPIENT)
        limits = Limits(bytes=2**20, transactions=100, objects=100)
        built = service.get_payload(
            PayloadRequest(
                parent_hash=self.final[-1],
                height=height,
                limits=limits,
                attributes=attributes,
                wait_ms=0,
            )
        ).built
        assert built is not None
        template = MAKER.block(parent, 1).changed(timestamp_ms=1_000 * height + 999)
        block = Block(header=template.header, payload=bytes(built.payload)).changed(
            payload_commitment=built.payload_commitment,
            payload_bytes=built.payload_bytes,
            transaction_count=built.transaction_count,
            transactions_root=built.transactions_root,
            state_hash=built.state_hash,
            receipts_hash=built.receipts_hash,
        )
        done = oracle.execute_payload(
            MAKER.accounts(parent), block.payload, MAKER.ledger, height, FEE_RECIPIENT, False
        )
        assert built.state_hash == done.state_hash
        assert set(done.statuses) <= {oracle.SUCCESS}
        assert service.new_payload(block.header, None).verdict is Verdict.VALID
        self.valid[block.hash] = block

    @rule()
    def restart(self) -> None:
        """Close and open: everything that was VALID is there."""
        self.home.restart()
        found = {item.hash for item in self.home.service.get_status().unfinalized}
        self.valid |= {name: block for name, block in self.given.items() if name in found}
        assert found == set(self.valid)
        if self.head not in self.valid:
            self.head = self.final[-1]

    @invariant()
    def status_is_the_models(self) -> None:
        """The status says what was answered."""
        if not hasattr(self, "home"):
            return
        service = self.home.service
        assert service.failure == service.degraded == ""
        status = service.get_status()
        assert status.finalized.height == len(self.final) - 1
        assert status.finalized.hash == self.final[-1]
        assert status.head.hash == self.head
        found = {block.hash for block in status.unfinalized}
        assert found <= set(self.valid)
        assert len(found) <= 2 * DEPTH


TestOrders = Orders.TestCase
TestOrders.settings = settings(
    max_examples=6,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
