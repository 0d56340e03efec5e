"""Finalized blocks as flat Parquet, for analysts: one file of transactions, one of receipts.

One row per transaction, one row group per block, keys and hashes as fixed binary of 32 bytes, in
canonical order. Both files appear whole or not at all. Blocks are read from a home that this
process has open, so a node is stopped first. Parquet is for clients: consensus never reads it.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from engine.codec import Batch, PayloadLimits, decode_payload
from engine.columns import count_of
from engine.header import Header
from engine.store.store import Store
from kernels.backend import Backend
from kernels.layout import BELOW_ACCOUNT_MINIMUM, INSUFFICIENT_BALANCE, SUCCESS, U8
from runtime.durable import sync_file, sync_folder
from runtime.errors import ExplainedError

STATUS_NAMES = {
    SUCCESS: "SUCCESS",
    INSUFFICIENT_BALANCE: "INSUFFICIENT_BALANCE",
    BELOW_ACCOUNT_MINIMUM: "BELOW_ACCOUNT_MINIMUM",
}
COMPRESSION = "zstd"
_KEY = pa.binary(32)

TRANSACTIONS = pa.schema(
    [
        pa.field("height", pa.uint64(), False),
        pa.field("timestamp_ms", pa.uint64(), False),
        pa.field("index", pa.uint32(), False),
        pa.field("lane", pa.uint32(), False),
        pa.field("hash", _KEY, False),
        pa.field("kind", pa.uint8(), False),
        pa.field("nonce", pa.uint64(), False),
        pa.field("valid_until", pa.uint64(), False),
        pa.field("amount", pa.uint64(), False),
        pa.field("fee", pa.uint64(), False),
        pa.field("memo", pa.binary(16), False),
        pa.field("sender", _KEY, False),
        pa.field("recipient", _KEY, False),
        pa.field("signature", pa.binary(64), False),
    ]
)
RECEIPTS = pa.schema(
    [
        pa.field("height", pa.uint64(), False),
        pa.field("index", pa.uint32(), False),
        pa.field("hash", _KEY, False),
        pa.field("status", pa.dictionary(pa.int8(), pa.string()), False),
        pa.field("fee", pa.uint64(), False),
    ]
)


class ExportError(ExplainedError):
    """Blocks that cannot be exported. Codes begin with `export.`"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What was written."""

    blocks: int
    transactions: int
    files: tuple[Path, ...]


def export_blocks(store: Store, backend: Backend, first: int, last: int, out: Path) -> Exported:
    """Write the finalized blocks [first, last] to two files in the folder `out`.

    Raises ExportError (`export.range`, `export.pruned`, `export.exists`), StoreDamaged, OSError.
    """
    newest = store.finalized.height
    if not 1 <= first <= last <= newest:
        final = f"finalized blocks have the heights 1 to {newest}"
        raise ExportError(
            "export.range",
            what=f"the heights {first} to {last} cannot be exported",
            where=str(store.home),
            why=final if newest else "no block is final yet",
            what_to_do="choose --from and --to within what is final, --from not above --to",
        )
    out.mkdir(parents=True, exist_ok=True)
    files = tuple(out.joinpath(f"{name}.parquet") for name in ("transactions", "receipts"))
    for path in files:
        if path.exists():
            raise ExportError(
                "export.exists",
                what="the file exists",
                where=str(path),
                why="an export never replaces another",
                what_to_do="move it away, or choose another folder",
            )
    temporary = [path.with_name(f"{path.name}.tmp") for path in files]
    transaction_count = 0
    with ExitStack() as stack:
        for path in temporary:
            stack.callback(path.unlink, missing_ok=True)
        writers = [
            stack.enter_context(pq.ParquetWriter(path, schema, compression=COMPRESSION))
            for path, schema in zip(temporary, (TRANSACTIONS, RECEIPTS), strict=True)
        ]
        for tables in _tables(store, backend, first, last):
            transaction_count += tables[0].num_rows
            for writer, table in zip(writers, tables, strict=True):
                if table.num_rows:
                    writer.write_table(table, row_group_size=table.num_rows)
        for writer, part in zip(writers, temporary, strict=True):
            writer.close()
            sync_file(part)
        _give_names(temporary, files)
    return Exported(blocks=last - first + 1, transactions=transaction_count, files=files)


def _give_names(parts: Sequence[Path], files: Sequence[Path]) -> None:
    """Let every part have its name, or none of them. Raises OSError."""
    named: list[Path] = []
    try:
        for part, path in zip(parts, files, strict=True):
            part.replace(path)
            named.append(path)
    except OSError:
        for path in named:
            path.unlink()
        raise
    sync_folder(files[0].parent)


def _tables(
    store: Store, backend: Backend, first: int, last: int
) -> Iterator[tuple[pa.Table, pa.Table]]:
    """Yield transactions and receipts of each block."""
    limits = store.genesis.parameters.limits
    for height in range(first, last + 1):
        block = store.block_at(height)
        payload = None if block is None else store.payload(block.block_hash)
        history = None if block is None else store.history(block.block_hash)
        if block is None or payload is None or history is None:
            raise ExportError(
                "export.pruned",
                what=f"the block at height {height} is not held any more",
                where=str(store.home),
                why="keep_blocks lets older payloads and receipts go",
                what_to_do="choose a later --from, or export from a node that keeps all blocks",
            )
        yield block_tables(backend, Header.decode(block.header), payload, history.statuses, limits)


def block_tables(
    backend: Backend,
    header: Header,
    payload: bytes | memoryview,
    statuses: U8,
    limits: PayloadLimits,
) -> tuple[pa.Table, pa.Table]:
    """Return one block as a table of TRANSACTIONS and one of RECEIPTS.

    statuses: (n,) uint8, in canonical order.
    """
    batch: Batch = decode_payload(payload, limits)
    columns, offsets = batch
    count = count_of(columns)
    assert len(statuses) == count, (len(statuses), count)
    common = {
        "height": np.full(count, header.height, np.uint64),
        "index": np.arange(count, dtype=np.uint32),
        "hash": _binary(backend.hash_transactions(columns)),
    }
    lanes = np.repeat(np.arange(len(offsets) - 1, dtype=np.uint32), np.diff(offsets))
    transactions = common | {
        "timestamp_ms": np.full(count, header.timestamp_ms, np.uint64),
        "lane": lanes,
        "kind": columns.kind,
        "nonce": columns.nonce,
        "valid_until": columns.valid_until,
        "amount": columns.amount,
        "fee": columns.fee,
        "memo": _binary(columns.memo),
        "sender": _binary(columns.sender),
        "recipient": _binary(columns.recipient),
        "signature": _binary(columns.signature),
    }
    names = [STATUS_NAMES[code] for code in sorted(STATUS_NAMES)]
    assert sorted(STATUS_NAMES) == list(range(len(names))), "a status is its place in the names"
    receipts = common | {
        "status": pa.DictionaryArray.from_arrays(pa.array(statuses.astype(np.int8)), names),
        "fee": columns.fee,
    }
    return _table(transactions, TRANSACTIONS), _table(receipts, RECEIPTS)


def _table(arrays: dict[str, Any], schema: Any) -> Any:
    return pa.Table.from_arrays([pa.array(arrays[name]) for name in schema.names], schema=schema)


def _binary(rows: U8) -> Any:
    """Return (n, width) uint8 as fixed binary."""
    data = np.ascontiguousarray(rows)
    kind = pa.binary(data.shape[1])
    return pa.Array.from_buffers(kind, len(data), [None, pa.py_buffer(data.reshape(-1))])
