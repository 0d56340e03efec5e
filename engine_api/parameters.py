"""Which parameters a chain may have: bounds of each and relations between them, with the reasons.

Both processes ask here: the executor where it reads a genesis, consensus where it reads what the
executor printed. Spec: spec/genesis.md#parameters.
"""

from collections.abc import Mapping
from typing import NamedTuple

PARAMETER_MAX = 2**32 - 1
"""of every parameter that nothing else bounds"""
COUNT_MAX = 2**31 - 1
VIEW_MS_MAX = 300_000
"""of a view's timer T_adv before it doubles, and so of each time in it"""
RETRANSMIT_MS_MIN = 10
RETRANSMIT_MS_MAX = 60_000
DRIFT_MS_MAX = 3_600_000
UNFINALIZED_MAX = 32
PAYLOAD_BYTES_MIN = 832


class Bounds(NamedTuple):
    """What one parameter may be, both ends included."""

    lowest: int
    highest: int
    reason: str
    """why, where it is not the width of the number"""


class Objection(NamedTuple):
    """What is wrong with the parameters of a chain; sentences without a full stop."""

    name: str
    """the parameter"""
    code: str
    what: str
    why: str
    what_to_do: str


_PLAIN = Bounds(1, PARAMETER_MAX, "")
_COUNT = Bounds(1, COUNT_MAX, "")
_TIME = Bounds(1, VIEW_MS_MAX, "a view whose leader is down lasts at least as long")
BOUNDS: Mapping[str, Bounds] = {
    "heights_per_epoch": _PLAIN,
    "delta_ms": _TIME,
    "execute_max_ms": _TIME,
    "transfer_max_ms": _TIME,
    "block_interval_ms": _TIME,
    "idle_interval_ms": _TIME,
    "retransmit_interval_ms": Bounds(
        RETRANSMIT_MS_MIN,
        RETRANSMIT_MS_MAX,
        "everybody repeats what it has said so often, and what was lost is missing so long",
    ),
    "unfinalized_max": Bounds(
        1, UNFINALIZED_MAX, "neighbouring certificates lie within one answer of 64 headers"
    ),
    "payload_bytes_max": Bounds(
        PAYLOAD_BYTES_MIN, PARAMETER_MAX, "one transaction needs that much"
    ),
    "transactions_max": _COUNT,
    "objects_max": _COUNT,
    "drift_ms": Bounds(
        1, DRIFT_MS_MAX, "a validator that lost its journal signs nothing for at least as long"
    ),
    "evidence_window_epochs": _PLAIN,
}


def objection(parameters: Mapping[str, int]) -> Objection | None:
    """Return the first thing that is wrong with the parameters, all of them by name, or None."""
    assert parameters.keys() == BOUNDS.keys(), parameters.keys()
    for name, bounds in BOUNDS.items():
        value = parameters[name]
        if not bounds.lowest <= value <= bounds.highest:
            reason = f": {bounds.reason}" if bounds.reason else ""
            return Objection(
                name,
                "range",
                f"{value} is out of range",
                f"it must be {bounds.lowest} to {bounds.highest}{reason}",
                "write a number in this range",
            )
    return _contradiction(parameters)


def _contradiction(parameters: Mapping[str, int]) -> Objection | None:
    """Return which times contradict each other, or None."""
    delta_ms = parameters["delta_ms"]
    block_interval_ms = parameters["block_interval_ms"]
    idle_interval_ms = parameters["idle_interval_ms"]
    retransmit_interval_ms = parameters["retransmit_interval_ms"]
    if block_interval_ms > idle_interval_ms:
        return Objection(
            "idle_interval_ms",
            "timing",
            f"idle_interval_ms is {idle_interval_ms}, and block_interval_ms {block_interval_ms}",
            "a view's timers begin with idle_interval_ms: a leader that waits longer is late",
            "raise idle_interval_ms or lower block_interval_ms until it is not longer",
        )
    if retransmit_interval_ms < delta_ms:
        return Objection(
            "retransmit_interval_ms",
            "timing",
            f"retransmit_interval_ms is {retransmit_interval_ms}, and delta_ms {delta_ms}",
            "what is repeated before it can have arrived only adds to the traffic",
            "raise retransmit_interval_ms to delta_ms or more",
        )
    work_ms = 3 * delta_ms + 2 * parameters["execute_max_ms"] + parameters["transfer_max_ms"]
    view_ms = idle_interval_ms + work_ms
    if view_ms > VIEW_MS_MAX:
        return Objection(
            "execute_max_ms",
            "timing",
            f"a view may last {view_ms} ms",
            "idle_interval_ms + 3 delta_ms + 2 execute_max_ms + transfer_max_ms, which a view "
            f"waits for a leader that is down, is at most {VIEW_MS_MAX}",
            "lower these times to what the network and its executors need",
        )
    return None
