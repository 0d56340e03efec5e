"""Transactions that come over HTTP: one as JSON, or a batch as records or as Arrow columns.

A batch is answered with a column of one `PoolReason` per record, in order; a single one with a
sentence where it is refused.
"""

from typing import Annotated, Any

import numpy as np
import pyarrow as pa
from msgspec import Meta, Struct

from engine.columns import COLUMN_TABLE, to_records
from engine.constants import TRANSACTION_BYTES, TRANSACTION_VERSION, TRANSFER
from engine.errors import RecordError
from engine.pool_rules import BATCH_MAX, PoolReason
from engine.queries import answers
from engine.queries.arrow_stream import ArrowRefused, read_table
from engine.queries.errors import busy, refused
from engine.queries.reader import Queries
from engine.signing import transaction_hash
from engine_api.types import SUBMIT_RECORDS_MAX
from kernels.layout import Columns

BATCH_RECORDS_MAX = min(BATCH_MAX, SUBMIT_RECORDS_MAX)
"""Records of one batch."""
BATCH_BYTES_MAX = BATCH_RECORDS_MAX * TRANSACTION_BYTES + 2**16
"""Of a body, with room for the schema of Arrow's format."""
BATCH_PATH = "/v1/transactions/batch"
ONE_BYTES_MAX = 2**14

RECORDS = "application/octet-stream"
ARROW = "application/vnd.apache.arrow.stream"

_AGAIN = "ask for the account at head, and sign again with its next_nonce"
SENTENCES: dict[PoolReason, tuple[str, str]] = {
    PoolReason.EXPIRED: (
        "valid_until is below the height of the next block",
        "sign again with a later valid_until",
    ),
    PoolReason.FEE_BELOW_MINIMUM: (
        "the fee is below the chain's minimum",
        "sign again with a fee of at least fee_minimum, see /v1/status",
    ),
    PoolReason.SIGNATURE: (
        "the signature is not that of the sender over these fields on this chain",
        "sign again: the domain of this chain, then the first 128 bytes of the record",
    ),
    PoolReason.UNKNOWN_SENDER: (
        "the sender has no account yet",
        "wait until its first credit is in a block",
    ),
    PoolReason.RECIPIENT_BELOW_MINIMUM: (
        "the recipient has no account, and the amount is less than a new one needs",
        "send at least account_minimum, see /v1/status",
    ),
    PoolReason.ACCOUNTS_FULL: (
        "the recipient has no account, and the chain has no room for new ones",
        "pay to an account that exists",
    ),
    PoolReason.NONCE_USED: ("the nonce is used already", _AGAIN),
    PoolReason.NONCE_TOO_FAR: ("the nonce is too far ahead of the account's next one", _AGAIN),
    PoolReason.INSUFFICIENT_BALANCE: (
        "the sender cannot pay this beside what it has sent already",
        "send less, or wait for credits to be in a block",
    ),
    PoolReason.TOO_MANY_PARKED: (
        "too many transactions of the sender wait for an earlier nonce",
        "send the missing nonce first",
    ),
    PoolReason.FEE_BUMP_TOO_LOW: (
        "another transaction with this nonce waits",
        "pay at least 110 % of its fee to replace it, or use the account's next_nonce",
    ),
    PoolReason.QUARANTINED: (
        "an earlier block was refused because of this transaction",
        "sign another one",
    ),
}
U64 = Annotated[str, Meta(pattern="^(0|[1-9][0-9]{0,19})$", max_length=20)]
AddressText = Annotated[str, Meta(min_length=1, max_length=128)]


class NewTransaction(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A signed transfer; version, kind and chain are those of the node."""

    sender: AddressText
    recipient: AddressText
    amount: U64
    fee: U64
    nonce: U64
    valid_until: U64
    memo: Annotated[str, Meta(pattern="^[0-9a-f]{32}$")] = "00" * 16
    signature: Annotated[str, Meta(pattern="^[0-9a-f]{128}$")]


def submit_one(queries: Queries, sent: NewTransaction) -> answers.Accepted:
    """Queue one transaction. Raises QueryError with what is against it."""
    record = record_of(queries, sent)
    reason = PoolReason(int(_submit(queries, record)[0]))
    if reason is PoolReason.POOL_FULL:
        raise busy("the pool is full, and others pay more")
    if not reason.is_taken:
        what, what_to_do = SENTENCES.get(reason, ("the pool refuses it", "look at the code"))
        raise refused(f"transaction.{reason.name.lower()}", what, what_to_do)
    return answers.Accepted(hash=transaction_hash(record).hex(), state="pending")


def record_of(queries: Queries, sent: NewTransaction) -> bytes:
    """Return the 192 bytes of a transaction. Raises QueryError."""
    head = bytes([TRANSACTION_VERSION, TRANSFER, 0, 0]) + queries.genesis.chain_id.to_bytes(
        4, "little"
    )
    numbers = b""
    for name in ("nonce", "valid_until", "amount", "fee"):
        value = int(getattr(sent, name))
        if value >= 2**64:
            raise refused(
                "transaction.range", f"{name} is above 2^64 - 1", "write a smaller number"
            )
        numbers += value.to_bytes(8, "little")
    keys = queries.key_of(sent.sender) + queries.key_of(sent.recipient)
    record = head + numbers + bytes(8) + bytes.fromhex(sent.memo) + keys
    return record + bytes.fromhex(sent.signature)


def submit_records(queries: Queries, body: bytes) -> bytes:
    """Queue a batch of records; return a byte for each. Raises QueryError."""
    if len(body) % TRANSACTION_BYTES:
        raise refused(
            "batch.length",
            f"{len(body)} bytes are no whole number of records",
            f"send {TRANSACTION_BYTES} bytes per transaction",
        )
    _check_count(len(body) // TRANSACTION_BYTES)
    return _submit(queries, body)


def submit_arrow(queries: Queries, body: bytes) -> bytes:
    """Queue the rows of a stream in Arrow's format; return one with a column `status`."""
    table = _read_arrow(body)
    arrays: list[Any] = []
    for column in COLUMN_TABLE:
        found = table.column(column.name).combine_chunks()
        width = None if found.type != pa.binary(column.width) else column.width
        buffer = np.frombuffer(found.buffers()[1] or b"", np.uint8)
        start = found.offset * column.width
        data = np.array(buffer[start : start + column.width * len(found)])
        shape = (len(found), width) if width else (len(found),)
        arrays.append(data.view(column.dtype).reshape(shape))
    try:
        records = to_records(Columns(*arrays))
    except RecordError as error:
        raise refused(error.code, error.what, error.what_to_do) from error
    statuses = np.frombuffer(_submit(queries, records.tobytes()), np.uint8)
    answer = pa.record_batch({"status": statuses})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, answer.schema) as writer:
        writer.write_batch(answer)
    return bytes(sink.getvalue())


def arrow_schema() -> pa.Schema:
    """Return the columns that a batch in Arrow's format has."""
    fields = []
    for column in COLUMN_TABLE:
        kind = pa.binary(column.width)
        if np.dtype(column.dtype).itemsize == column.width:
            kind = pa.from_numpy_dtype(np.dtype(column.dtype))
        fields.append(pa.field(column.name, kind, nullable=False))
    return pa.schema(fields)


def _submit(queries: Queries, records: bytes) -> bytes:
    """Return a PoolReason for each record; none is no work."""
    return queries.service.admit(records).tobytes() if records else b""


def _check_count(count: int) -> None:
    if count > BATCH_RECORDS_MAX:
        raise refused(
            "batch.size",
            f"{count} transactions are more than {BATCH_RECORDS_MAX}",
            "send smaller batches",
        )


def _read_arrow(body: bytes) -> pa.Table:
    """Return a table with exactly the columns of a transaction. Raises QueryError."""
    names = [column.name for column in COLUMN_TABLE]
    try:
        return read_table(body, arrow_schema(), _check_count)
    except (ArrowRefused, pa.ArrowException, KeyError, OSError, ValueError) as why:
        raise refused(
            "batch.arrow",
            f"this is no Arrow stream of transactions: {str(why)[:200]}",
            f"send one stream with the columns {', '.join(names)}, without nulls and compression",
        ) from why
