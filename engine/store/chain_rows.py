"""The rows of one chain: what is finalized, what continues it, and what is forgotten beside it.

Each function works within one transaction of its caller. Read `rows.py` for the tables.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from engine.header import Header
from engine.store.errors import not_final
from engine.store.rows import BlockRow, Pointer, Reader, Writer
from engine.store.segment import LogKind, Position
from engine.store.values import FinalBlock

FINALIZED = "finalized"
HEAD = "head"


def pointers(reader: Reader) -> tuple[Pointer, Pointer]:
    """Return the finalized block and the head."""
    finalized, head = reader.pointer(FINALIZED), reader.pointer(HEAD)
    assert finalized is not None, "recovery sets it"
    assert head is not None, "recovery sets it"
    return finalized, head


def rows_of(
    reader: Reader, home: Path, finalized: Pointer, blocks: Sequence[FinalBlock]
) -> list[BlockRow]:
    """Return the rows of blocks that continue the finalized chain; raises StoreError."""
    parent, rows = finalized, []
    for block in blocks:
        row = reader.block(block.block_hash)
        if row is None or Header.decode(row.header).parent_hash != parent.block_hash:
            raise not_final(home, block.block_hash, parent.height)
        rows.append(row)
        parent = Pointer(height=row.height, block_hash=block.block_hash)
    return rows


def head_after(
    home: Path, finalized: Pointer, head: Pointer, wanted: bytes | None, known: Mapping[bytes, int]
) -> Pointer:
    """Return the head as it will be; raises StoreError for an unknown one.

    wanted: its hash, None for no other one; known: hash -> height of what is not finalized yet.
    """
    if wanted is None:
        return head
    if wanted == finalized.block_hash:
        return finalized
    height = known.get(wanted, 0)
    if height <= finalized.height:
        raise not_final(home, wanted, finalized.height)
    return Pointer(height=height, block_hash=wanted)


def forget_abandoned(writer: Writer, finalized: Pointer) -> list[tuple[bytes, BlockRow]]:
    """Forget the blocks that do not descend from the finalized one, and return them.

    The head falls back to the finalized block if it was among them, or is below.
    """
    kept = {finalized.block_hash}
    abandoned = []
    for item in writer.unfinalized():
        row = writer.block(item.block_hash)
        assert row is not None, "an unfinalized block has a row"
        if Header.decode(row.header).parent_hash in kept:
            kept.add(item.block_hash)
        else:
            writer.forget_block(item.block_hash, row)
            abandoned.append((item.block_hash, row))
    head = writer.pointer(HEAD)
    if head is None or head.block_hash not in kept:
        writer.set_pointer(HEAD, finalized)
    return abandoned


def forget_last(writer: Writer, end: Position, block_hash: bytes) -> Position | None:
    """Forget an unfinalized block whose record ends the log, and return where the log ends then.

    None, and nothing has changed, where it is not stored or other records stand behind it.
    """
    row = writer.block(block_hash)
    if row is None or row.history is not None or row.payload.end != end:
        return None
    begin = Position(row.payload.segment, row.payload.offset)
    writer.forget_block(block_hash, row)
    writer.set_durable_end(LogKind.BLOCKS, begin)
    return begin
