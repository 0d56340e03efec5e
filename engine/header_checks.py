"""What a header says that can be judged before the payload is decoded, in the order of the page.

Spec: spec/engine_api.md#newpayload.
"""

from engine.chain import Node
from engine.constants import HEADER_VERSION
from engine.errors import InvalidPayload, Reason
from engine.header import Header
from engine.transition import Outcome
from engine.types import ZERO_HASH
from engine_api.checks import check_range


def check_alone(header: bytes, chain_id: int, payload_bytes_max: int) -> Header:
    """Return a header whose length, version and chain are right.

    Raises InvalidPayload, and EngineApiError (INVALID_ARGUMENT) for a payload that no block of this
    chain can have.
    """
    fields = Header.decode(header)
    if fields.version != HEADER_VERSION:
        detail = f"header version {fields.version} is unknown; this program knows {HEADER_VERSION}"
        raise InvalidPayload(Reason.HEADER_VERSION, None, detail)
    if fields.chain_id != chain_id:
        detail = f"it names chain {fields.chain_id}, and this is chain {chain_id}"
        raise InvalidPayload(Reason.HEADER_CHAIN_ID, None, detail)
    check_range("payload_bytes of the header", fields.payload_bytes, 0, payload_bytes_max)
    return fields


def check_on_parent(parent: Node, fields: Header) -> None:
    """Raise InvalidPayload unless height, time and reserved fields are right after `parent`."""
    if fields.height != parent.height + 1:
        detail = f"height {fields.height} does not follow {parent.height}"
        raise InvalidPayload(Reason.HEADER_HEIGHT, None, detail)
    if fields.timestamp_ms <= parent.timestamp_ms:
        detail = f"{fields.timestamp_ms} ms is not after the parent's {parent.timestamp_ms} ms"
        raise InvalidPayload(Reason.HEADER_TIMESTAMP, None, detail)
    if fields.system_hash != ZERO_HASH:
        raise InvalidPayload(Reason.HEADER_SYSTEM, None, "system_hash is zero in this version")
    if fields.reserved != ZERO_HASH:
        raise InvalidPayload(
            Reason.HEADER_RESERVED, None, "reserved bytes are zero in this version"
        )


def check_result(fields: Header, outcome: Outcome) -> None:
    """Raise InvalidPayload unless the header says what execution came to."""
    compared: tuple[tuple[Reason, int | bytes, int | bytes], ...] = (
        (Reason.TRANSACTION_COUNT, fields.transaction_count, len(outcome.statuses)),
        (Reason.TRANSACTIONS_ROOT, fields.transactions_root, outcome.transactions_root),
        (Reason.RECEIPTS_HASH, fields.receipts_hash, outcome.receipts_hash),
        (Reason.STATE_HASH, fields.state_hash, outcome.state_hash),
    )
    for reason, said, found in compared:
        if said != found:
            detail = f"the header says {_shown(said)}, execution gives {_shown(found)}"
            raise InvalidPayload(reason, None, detail)


def _shown(value: int | bytes) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)
