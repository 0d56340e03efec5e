"""One engine, many implementers: the executor's service, the client, and whatever stands in tests.

All calls are synchronous and may come from any thread, in any order, twice. Each either answers or
raises `EngineApiError`; none leaves half of anything behind. Spec: spec/engine_api.md.
"""

import time
from collections.abc import Callable, Sequence
from typing import Protocol

from engine_api.types import (
    Bodies,
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

NS_PER_MS = 1_000_000


class Deadline:
    """How long a call is still wanted.

    Whoever works on a call asks between its stages, by `check`; a stage itself is never cut. So a
    call that was stopped has changed nothing, and one that passed its last check is finished.
    """

    __slots__ = ("_at_ns", "_clock_ns", "_is_cancelled")

    def __init__(
        self,
        at_ns: int | None = None,
        *,
        is_cancelled: Callable[[], bool] | None = None,
        clock_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """End at `at_ns` of the clock (None: never), or when the caller has gone."""
        self._at_ns = at_ns
        self._is_cancelled = is_cancelled
        self._clock_ns = clock_ns

    @classmethod
    def after_ms(
        cls,
        timeout_ms: int,
        *,
        is_cancelled: Callable[[], bool] | None = None,
        clock_ns: Callable[[], int] = time.monotonic_ns,
    ) -> "Deadline":
        """Return the deadline that lies so far ahead."""
        at_ns = clock_ns() + timeout_ms * NS_PER_MS
        return cls(at_ns, is_cancelled=is_cancelled, clock_ns=clock_ns)

    def remaining_ms(self) -> int | None:
        """Return how long is left, 0 when it is over, None when it never ends."""
        if self._at_ns is None:
            return None
        return max(0, self._at_ns - self._clock_ns()) // NS_PER_MS

    def cancelled(self) -> bool:
        """Say whether nobody waits for the answer any more."""
        return self._why_over() is not None

    def check(self, stage: str) -> None:
        """Raise DEADLINE_EXCEEDED when nobody waits any more; `stage` names what is not begun."""
        why = self._why_over()
        if why is not None:
            raise EngineApiError(
                ErrorCode.DEADLINE_EXCEEDED, f"{why} before {stage}; nothing was changed"
            )

    def _why_over(self) -> str | None:
        if self._at_ns is not None and self._clock_ns() >= self._at_ns:
            return "the deadline of the call passed"
        if self._is_cancelled is not None and self._is_cancelled():
            return "the caller gave up"
        return None


NEVER = Deadline()
"""The deadline of a call that is wanted for however long it takes."""


class ExecutionEngine(Protocol):
    """What consensus can ask of an executor. Raises EngineApiError only."""

    def get_status(self, deadline: Deadline = NEVER) -> StatusAnswer:
        """Return which chain the executor works for, and where it stands."""

    def get_payload(self, request: PayloadRequest, deadline: Deadline = NEVER) -> PayloadAnswer:
        """Build a payload on a block.

        Errors: INVALID_ARGUMENT (height is not the parent's + 1, a limit above the genesis
        parameter, a time that is not after the parent's), DEPTH_EXCEEDED. On a parent that is
        unknown, or below finalized, nothing is built, which is no error.
        """

    def new_payload(
        self,
        header: bytes,
        payload: bytes | memoryview | None,
        deadline: Deadline = NEVER,
    ) -> NewPayloadAnswer:
        """Judge a block and make it durable; `payload` None: the executor holds it already.

        `header` may have any length (INVALID, HEADER_LENGTH). The executor may keep `payload`: the
        caller does not change it. Errors: INVALID_ARGUMENT (payload_bytes above the genesis
        parameter), CONFLICT (at or below finalized and not a finalized block), PAYLOAD_NOT_HELD,
        DEPTH_EXCEEDED, RESOURCE_EXHAUSTED.
        """

    def forkchoice_updated(
        self, head: bytes, safe: bytes, finalized: bytes, deadline: Deadline = NEVER
    ) -> ForkchoiceAnswer:
        """Stand on head, make finalized irreversible and durable.

        Errors: CONFLICT (finalized is below or beside the executor's), INVALID_ARGUMENT (head does
        not descend from safe, or safe not from finalized).
        """

    def bodies_by_hash(self, hashes: Sequence[bytes], deadline: Deadline = NEVER) -> Bodies:
        """Return stored blocks, one per hash (1 to BODIES_MAX), in their order."""

    def bodies_by_range(self, first_height: int, count: int, deadline: Deadline = NEVER) -> Bodies:
        """Return `count` (1 to BODIES_MAX) finalized blocks from `first_height` (1 or more) on.

        Every height has its body; what is not finalized, or pruned, is not found.
        """

    def validator_set(self, epoch: int, deadline: Deadline = NEVER) -> ValidatorSetAnswer:
        """Return who decides the blocks of an epoch."""

    def health(self, deadline: Deadline = NEVER) -> HealthAnswer:
        """Return whether the executor serves; it answers also while a block is executed."""

    def submit(self, batch: bytes | memoryview, deadline: Deadline = NEVER) -> SubmitAnswer:
        """Offer transactions: 1 to SUBMIT_RECORDS_MAX records of 192 bytes, one after another.

        Errors: INVALID_ARGUMENT (another length).
        """
