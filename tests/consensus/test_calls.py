"""Calls of the executor: one end each, in the order of ids, and a late answer is no answer."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from consensus.calls import Calls, Ended
from consensus.core import events as ev
from consensus.core.codec import decode_header
from consensus.core.types import Hash32, Height, PublicKey
from engine.errors import Reason
from engine_api.protocol import NEVER, Deadline
from engine_api.types import (
    EngineApiError,
    ErrorCode,
    NewPayloadAnswer,
    PayloadAnswer,
    PayloadRequest,
    StatusAnswer,
)
from tests.consensus.local import ToyExecutor, key_pairs, make_chain, wait_until
from tests.engine_api import toy

TIMEOUT_MS = 20_000
PROPOSER = PublicKey(bytes([4]) * 32)
"""of every block of the toy"""


class Rig:
    """Calls over the toy, and what they told."""

    def __init__(self, engine: ToyExecutor) -> None:
        """Prepare."""
        engine.chain = make_chain(key_pairs(4))
        self.engine = engine
        self.events: list[ev.Answered | ev.CallFailed] = []
        self.ended: list[Ended] = []
        self.failures: list[BaseException] = []
        self.held: dict[bytes, bytes] = {}
        self.calls = Calls(
            engine=engine,
            key=PROPOSER,
            hold=self.held.__setitem__,
            get=self.held.get,
            on_event=self.events.append,
            on_ended=self.ended.append,
            on_failure=lambda _where, error: self.failures.append(error),
        )
        self.calls.start()

    def ask(self, call_id: int, request: ev.CallRequest, timeout_ms: int = TIMEOUT_MS) -> Any:
        """Make a call and return its answer or error."""
        count = len(self.events)
        self.calls.make(ev.Call(call_id=call_id, request=request, timeout_ms=timeout_ms))
        wait_until("the call ends", lambda: len(self.events) > count)
        event = self.events[-1]
        assert event.call_id == call_id
        return event.error if isinstance(event, ev.CallFailed) else event.answer


@pytest.fixture
def make() -> Iterator[Callable[..., Rig]]:
    """Return a way to make rigs; their threads end with the test."""
    made: list[Rig] = []

    def one(engine: ToyExecutor | None = None) -> Rig:
        made.append(Rig(engine or ToyExecutor()))
        return made[-1]

    yield one
    for rig in made:
        rig.calls.stop()
        assert not rig.failures


def get_payload(parent: bytes = toy.GENESIS_HASH) -> ev.GetPayload:
    """Return a request that is answered at once."""
    return ev.GetPayload(
        parent_hash=Hash32(parent),
        height=Height(1),
        payload_bytes_max=1_000,
        transactions_max=4,
        objects_max=4,
        timestamp_ms=1_000,
        fee_recipient=PublicKey(toy.FEE_RECIPIENT),
        wait_ms=0,
    )


def new_payload(block: toy.Block) -> ev.NewPayload:
    """Return the call for a block."""
    return ev.NewPayload(block_hash=Hash32(block.hash), header=decode_header(block.header))


def test_every_kind_is_answered_in_the_words_of_the_core(make: Callable[..., Rig]) -> None:
    """Status, build, verdict, forkchoice and set come back as the core takes them."""
    rig = make()
    status = rig.ask(1, ev.GetStatus())
    assert status == ev.ExecutorStatus(
        genesis_hash=Hash32(toy.GENESIS_HASH),
        params_hash=Hash32(toy.PARAMS_HASH),
        finalized_height=Height(0),
        finalized_hash=Hash32(toy.GENESIS_HASH),
        unfinalized=(),
    )
    built = rig.ask(2, get_payload())
    assert isinstance(built, ev.PayloadBuilt)
    assert len(rig.held[built.payload_commitment]) == built.payload_bytes
    found = rig.ask(3, ev.GetValidatorSet(epoch=1))
    assert found == ev.ValidatorsOf(validators=rig.engine.chain.validators[0])
    genesis = Hash32(toy.GENESIS_HASH)
    told = rig.ask(4, ev.ForkchoiceUpdated(head=genesis, safe=genesis, finalized=genesis))
    assert told == ev.ForkchoiceDone()
    assert rig.calls.is_connected
    assert rig.calls.boot_id == rig.engine.boot_id


def test_unknown_blocks_are_syncing(make: Callable[..., Rig]) -> None:
    """Where the contract says SYNCING the core hears ExecutorSyncing or the verdict."""
    rig = make()
    assert rig.ask(1, get_payload(b"u" * 32)) == ev.ExecutorSyncing()
    unknown = Hash32(b"u" * 32)
    told = rig.ask(2, ev.ForkchoiceUpdated(head=unknown, safe=unknown, finalized=unknown))
    assert told == ev.ExecutorSyncing()


def test_new_payload_streams_what_is_held_and_nothing_else(make: Callable[..., Rig]) -> None:
    """Held bytes are sent with the header; without them the executor must have the block."""
    rig = make()
    first = toy.make_block(None, 1)
    second = toy.make_block(first, 2)
    commitment = first.fields.payload_commitment
    assert rig.ask(1, new_payload(first)) == ev.CallError.PAYLOAD_NOT_HELD
    rig.held[commitment] = bytes(first.payload)
    assert rig.ask(2, new_payload(first)) == ev.PayloadJudged(verdict=ev.Verdict.VALID)
    rig.held.clear()
    assert rig.ask(3, new_payload(first)) == ev.PayloadJudged(verdict=ev.Verdict.VALID)
    rig.held[second.fields.payload_commitment] = bytes(second.payload) + b"more"
    assert rig.ask(4, new_payload(second)) == ev.PayloadJudged(verdict=ev.Verdict.MALFORMED)
    wrong = second.changed(state_hash=bytes(32))
    rig.held[second.fields.payload_commitment] = bytes(second.payload)
    judged = rig.ask(5, new_payload(wrong))
    assert judged.verdict == ev.Verdict.INVALID
    assert judged.reason == Reason.STATE_HASH


def test_an_own_build_is_streamed_only_where_the_executor_lost_it(
    make: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The executor has what it built: first the header alone, then with bytes if it says so."""
    rig = make()
    sent: list[bytes | memoryview | None] = []
    judge = rig.engine.new_payload

    def watch(
        header: bytes, payload: bytes | memoryview | None, deadline: Deadline = NEVER
    ) -> NewPayloadAnswer:
        sent.append(payload)
        return judge(header, payload, deadline)

    monkeypatch.setattr(rig.engine, "new_payload", watch)
    block = toy.make_block(None, 1)
    payload = rig.held[block.fields.payload_commitment] = bytes(block.payload)
    assert rig.ask(1, new_payload(block)) == ev.PayloadJudged(verdict=ev.Verdict.VALID)
    assert sent == [None, payload]
    other = toy.make_block(None, 2).changed(proposer=b"o" * 32)
    payload = rig.held[other.fields.payload_commitment] = bytes(other.payload)
    assert rig.ask(2, new_payload(other)) == ev.PayloadJudged(verdict=ev.Verdict.VALID)
    assert sent[2:] == [payload]


@pytest.mark.parametrize("code", list(ErrorCode))
def test_errors_keep_their_numbers(make: Callable[..., Rig], code: ErrorCode) -> None:
    """Every code of the contract is the same error for the core, and never a verdict."""

    class Failing(ToyExecutor):
        def get_status(self, deadline: Deadline = NEVER) -> StatusAnswer:
            raise EngineApiError(code, "on purpose")

    rig = make(Failing())
    assert rig.ask(1, ev.GetStatus()) == ev.CallError(int(code))
    assert rig.ended[-1].outcome == code.name


def test_calls_start_in_the_order_of_their_ids(make: Callable[..., Rig]) -> None:
    """A call that comes before one with a lower id waits for it."""
    rig = make()
    rig.calls.make(ev.Call(call_id=2, request=get_payload(), timeout_ms=TIMEOUT_MS))
    assert len(rig.calls) == 0
    rig.calls.make(ev.Call(call_id=1, request=ev.GetStatus(), timeout_ms=TIMEOUT_MS))
    wait_until("both end", lambda: len(rig.events) == 2)
    assert {event.call_id for event in rig.events} == {1, 2}


class Hanging(ToyExecutor):
    """An executor that answers GetPayload only when it is let go."""

    def __init__(self) -> None:
        """Begin hung."""
        super().__init__()
        self.gate = threading.Event()
        self.asked = 0

    def get_payload(self, request: PayloadRequest, deadline: Deadline = NEVER) -> PayloadAnswer:
        """Hang, whatever the deadline says."""
        self.asked += 1
        assert self.gate.wait(60)
        return super().get_payload(request, NEVER)


def test_a_call_that_hangs_ends_by_its_deadline_and_only_once(make: Callable[..., Rig]) -> None:
    """The core hears DEADLINE_EXCEEDED; the late answer is dropped and its bytes are not held."""
    engine = Hanging()
    rig = make(engine)
    rig.calls.make(ev.Call(call_id=1, request=get_payload(), timeout_ms=50))
    wait_until("the executor is asked", lambda: engine.asked == 1)
    wait_until("the deadline passes", lambda: rig.calls.expire() is None)
    assert rig.events == [ev.CallFailed(call_id=1, error=ev.CallError.DEADLINE_EXCEEDED)]
    assert len(rig.calls) == 0
    status = rig.ask(2, ev.GetStatus())
    assert isinstance(status, ev.ExecutorStatus), "another kind is not held up"
    engine.gate.set()
    built = rig.ask(3, get_payload())
    assert isinstance(built, ev.PayloadBuilt)
    assert [event.call_id for event in rig.events] == [1, 2, 3]
    assert list(rig.held) == [built.payload_commitment]


def test_a_call_behind_one_that_hangs_ends_by_its_own_deadline(make: Callable[..., Rig]) -> None:
    """While a thread hangs, the next call of its kind times out and is never begun."""
    engine = Hanging()
    rig = make(engine)
    for call_id in (1, 2):
        rig.calls.make(ev.Call(call_id=call_id, request=get_payload(), timeout_ms=30))
        wait_until("it ends", lambda: rig.calls.expire() is None)
    assert [event.call_id for event in rig.events] == [1, 2]
    engine.gate.set()
    assert isinstance(rig.ask(3, get_payload()), ev.PayloadBuilt)
    assert engine.asked == 2


def test_a_bug_in_an_answer_is_told(make: Callable[..., Rig]) -> None:
    """What is no error of the contract is a bug: it ends the thread, and the node with it."""

    class Wrong(ToyExecutor):
        def get_status(self, deadline: Deadline = NEVER) -> StatusAnswer:
            raise ValueError("a bug")

    rig = make(Wrong())
    rig.calls.make(ev.Call(call_id=1, request=ev.GetStatus(), timeout_ms=TIMEOUT_MS))
    wait_until("it is told", lambda: bool(rig.failures))
    assert isinstance(rig.failures.pop(), ValueError)
