"""What the service tells the shell: values for its log and its metrics.

The service itself writes no log. Each value is given once to the function that `open_service` was
called with, from whatever thread it happened on; the function returns soon and raises nothing.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockExecuted:
    """A block was found VALID and is durable; one line of the log."""

    height: int
    block_hash: bytes
    transaction_count: int
    payload_bytes: int
    stage_ns: Mapping[str, int]
    """nanoseconds per stage of execution, and of `commitment` and `append` (the disk)"""
    total_ns: int
    is_own: bool
    """it was built here, and not executed again"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finalized:
    """Blocks became irreversible in one durable step."""

    height: int
    """of the highest"""
    block_hash: bytes
    block_count: int
    abandoned_count: int
    """blocks that were given up"""
    total_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockInvalid:
    """A block is INVALID, confirmed where that is asked for."""

    height: int
    block_hash: bytes
    reason: int
    """number of a `engine.errors.Reason`"""
    detail: str
    kept_in: str
    """path of the folder that has header and payload, or empty"""


@dataclass(frozen=True, slots=True, kw_only=True)
class PathDisabled:
    """A slower arm has taken over: look at the machine.

    The serial arm contradicted the vectorised path, or a device failed or differed from the CPU.
    """

    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopped:
    """The service has stopped for good: the process must end."""

    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovered:
    """The service stands where its disk left it."""

    finalized_height: int
    base_height: int
    """of the snapshot that was loaded; 0 is genesis"""
    executed_count: int
    """stored blocks above finalized that were executed again"""
    total_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """Something that a person should know, and that needs nothing done at once."""

    text: str


Event = BlockExecuted | Finalized | BlockInvalid | PathDisabled | Stopped | Recovered | Notice
Report = Callable[[Event], None]


def report_nothing(_: Event) -> None:
    """Take an event and do nothing: for those who only want the answers."""
