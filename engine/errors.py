"""What can be wrong with foreign data, and how it is said.

Three kinds, never mixed: a payload or header that may not be accepted is `InvalidPayload` with a
`Reason`; what a person wrote wrongly (genesis, address, record) is an `ExplainedError` with what,
where, why, what to do and a stable code; a bug is an `assert`. Disk and device errors pass through.
"""

from enum import IntEnum

from kernels import layout
from runtime.errors import ExplainedError

TRANSACTION_REASON_BASE = 64
"""reason of a transaction = this + its defect code in `kernels/layout.py`"""


class Reason(IntEnum):
    """Why a block is INVALID. Numbers are stable; each phase has a range of its own.

    1-31 the header and what it claims, 32-63 the payload's encoding, 64-95 one transaction, from 96
    the block's result. Encoding and transaction reasons ascend in the order of their checks; the
    header's order is in spec/engine_api.md. Spec: spec/payload.md#checks, spec/block.md#checks.
    """

    HEADER_VERSION = 1
    HEADER_CHAIN_ID = 2
    HEADER_HEIGHT = 3
    HEADER_TIMESTAMP = 4
    HEADER_RESERVED = 5
    HEADER_SYSTEM = 6
    TRANSACTION_COUNT = 7
    TRANSACTIONS_ROOT = 8
    RECEIPTS_HASH = 9
    STATE_HASH = 10
    HEADER_LENGTH = 11
    """not 400 bytes: looked for before all others, since there is no header then"""

    PAYLOAD_TOO_SHORT = 32
    PAYLOAD_MAGIC = 33
    PAYLOAD_VERSION = 34
    PAYLOAD_RESERVED = 35
    PAYLOAD_LIMITS = 36
    PAYLOAD_LENGTH = 37
    LANE_OFFSETS = 38
    LANE_EMPTY = 39
    PAYLOAD_PADDING = 40

    TRANSACTION_VERSION = TRANSACTION_REASON_BASE + layout.TRANSACTION_VERSION
    TRANSACTION_KIND = TRANSACTION_REASON_BASE + layout.TRANSACTION_KIND
    CHAIN_ID = TRANSACTION_REASON_BASE + layout.CHAIN_ID
    EXPIRED = TRANSACTION_REASON_BASE + layout.EXPIRED
    LANE_SPLITTABLE = TRANSACTION_REASON_BASE + layout.LANE_SPLITTABLE
    UNKNOWN_SENDER = TRANSACTION_REASON_BASE + layout.UNKNOWN_SENDER
    LANE_MERGEABLE = TRANSACTION_REASON_BASE + layout.LANE_MERGEABLE
    NONCE = TRANSACTION_REASON_BASE + layout.NONCE
    FEE_BELOW_MINIMUM = TRANSACTION_REASON_BASE + layout.FEE_BELOW_MINIMUM
    FEE_ABOVE_SPENDABLE = TRANSACTION_REASON_BASE + layout.FEE_ABOVE_SPENDABLE
    SIGNATURE = TRANSACTION_REASON_BASE + layout.SIGNATURE

    ACCOUNTS_EXCEEDED = 96


class InvalidPayload(Exception):
    """Foreign bytes, matching their commitment or not, that may not become a block.

    `position` is the index of the transaction in the payload's columns, or None where the defect is
    not that of one transaction.
    """

    def __init__(self, reason: Reason, position: int | None, detail: str) -> None:
        """Keep the reason, the transaction that it is about, and a sentence for people."""
        where = "" if position is None else f" (transaction {position})"
        super().__init__(f"{reason.name}{where}: {detail}")
        self.reason = reason
        self.position = position
        self.detail = detail


class GenesisError(ExplainedError):
    """A genesis that no chain can start from. Codes begin with `genesis.`"""


class AddressError(ExplainedError):
    """A text that is not an address of this chain. Codes begin with `address.`"""


class RecordError(ExplainedError):
    """Transaction records that cannot become columns. Codes begin with `record.`"""
