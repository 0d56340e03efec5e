"""From whatever a crash left to rows and logs that agree.

In the ordinary case the rows are good: whole records behind the durable ends are taken in, a torn
rest is cut. Where the rows are damaged they are made anew from the heads of all records, which is
possible because every record names its block and carries its header.
Spec: spec/storage.md#recovery.
"""

import shutil
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from engine.header import Header
from engine.store.blocks import PAYLOAD_START, header_of
from engine.store.chain_rows import FINALIZED, HEAD, forget_abandoned
from engine.store.errors import StoreDamaged, damaged
from engine.store.rows import BlockRow, Pointer, Rows, RowsDamaged, Writer
from engine.store.rows_check import check_rows
from engine.store.segment import Location, LogKind, Position, Record, SegmentLog, cut_torn_tail

NOWHERE = Location(0, 0, 0)
"""Location of a payload that is pruned."""


def open_rows(folder: Path) -> tuple[Rows, str | None]:
    """Return the rows in a folder, and why they are new and empty if they had to be made anew."""
    if not (folder / "data.mdb").exists():
        return Rows(folder), None
    defect = check_rows(folder)
    if defect is None:
        try:
            return Rows(folder), None
        except RowsDamaged as error:
            defect = str(error)
    shutil.rmtree(folder)
    folder.mkdir(mode=0o700)
    return Rows(folder), defect


def recover(rows: Rows, blocks: SegmentLog, history: SegmentLog, genesis_hash: bytes) -> list[str]:
    """Make rows and logs agree and return what was done, in sentences. Raises StoreDamaged."""
    with rows.read() as reader:
        is_new = reader.pointer(FINALIZED) is None
        ends = {kind: reader.durable_end(kind) for kind in LogKind}
        files = {kind: reader.greatest_heights(kind) for kind in LogKind}
    notices: list[str] = []
    found: dict[LogKind, list[Record]] = {}
    for log in (history, blocks):
        if is_new:
            found[log.kind], cut = _scan_all(log)
        else:
            _check_files(log, set(files[log.kind]), ends[log.kind])
            found[log.kind], cut = cut_torn_tail(log, ends[log.kind])
        if cut:
            notices.append(f"{log.folder}: cut {cut} bytes of records that were never finished")
    abandoned: list[tuple[bytes, BlockRow]] = []
    with rows.write() as writer:
        if is_new:
            root = Pointer(height=0, block_hash=genesis_hash)
            writer.set_pointer(FINALIZED, root)
            writer.set_pointer(HEAD, root)
        if is_new and found[LogKind.HISTORY]:
            _finalize_all(writer, history, found[LogKind.HISTORY])
            _take_in_blocks(writer, blocks, found[LogKind.BLOCKS])
        else:
            _take_in_blocks(writer, blocks, found[LogKind.BLOCKS])
            abandoned = _finalize_found(writer, history, found[LogKind.HISTORY])
        writer.set_durable_end(LogKind.BLOCKS, blocks.end)
        writer.set_durable_end(LogKind.HISTORY, history.end)
    for _, row in abandoned:
        blocks.reclaim(row.payload, PAYLOAD_START)
    taken = sum(len(records) for records in found.values())
    if taken and is_new:
        notices.append(f"made the rows anew from {taken} records")
    elif taken:
        notices.append(f"took in {taken} whole records that had not been answered for")
    return notices


def _check_files(log: SegmentLog, known: set[int], end: Position) -> None:
    """Remove files that were pruned in the rows already; raise if a file is missing."""
    for segment in sorted(known - set(log.segments)):
        raise damaged(log.path(segment), 0, "the file is missing")
    for segment in log.segments:
        if segment not in known and segment < end.segment:
            log.remove(segment)
    for segment in sorted(known):
        log.check_file(segment)


def _scan_all(log: SegmentLog) -> tuple[list[Record], int]:
    """Return all records where nothing says how far the log was durable.

    What breaks off at the very end is cut; anything else that is no record is damage. Files before
    the last were synced whole before the next began, so their heads are enough.
    """
    records: list[Record] = []
    end = Position(0, 0)
    last = log.segments[-1] if log.segments else 0
    deep_from = last if log.kind == LogKind.HISTORY else last + 1
    try:
        for record in log.scan(end, deep_from=deep_from):
            records.append(record)
            end = record.location.end
    except StoreDamaged:
        if log.has_record_after(end):
            raise
    if log.kind == LogKind.BLOCKS and records:
        # An older record's body may have been reclaimed; that of the last may be torn.
        try:
            log.read(records[-1].location, records[-1].block_hash)
        except StoreDamaged:
            records.pop()
            end = records[-1].location.end if records else Position(0, 0)
    return records, log.cut(end)


def _header(log: SegmentLog, record: Record) -> tuple[bytes, Header]:
    """Return the header of a record, compared with the hash that names it."""
    data = header_of(log, record.location)
    header = Header.decode(data)
    if header.block_hash() != record.block_hash or header.height != record.height:
        path = log.path(record.location.segment)
        raise damaged(path, record.location.offset, "the header has another hash")
    return data, header


def _finalize_all(writer: Writer, history: SegmentLog, records: list[Record]) -> None:
    """Make rows for all finalized blocks, whose payloads may or may not be held."""
    for before, record in pairwise(records):
        if record.height != before.height + 1:
            path = history.path(record.location.segment)
            why = f"height {record.height} follows {before.height}"
            raise damaged(path, record.location.offset, why)
    for record in records:
        data, _ = _header(history, record)
        row = BlockRow(height=record.height, payload=NOWHERE, history=record.location, header=data)
        writer.put_block(record.block_hash, row)
    newest = Pointer(height=records[-1].height, block_hash=records[-1].block_hash)
    writer.set_pointer(FINALIZED, newest)
    writer.set_pointer(HEAD, newest)
    writer.set_number("floor", records[0].height)


def _take_in_blocks(writer: Writer, blocks: SegmentLog, records: list[Record]) -> None:
    """Make rows for stored blocks: finalized ones, and those that descend from the finalized."""
    finalized = writer.pointer(FINALIZED)
    assert finalized is not None
    known = {finalized.block_hash} | {item.block_hash for item in writer.unfinalized()}
    for record in sorted(records, key=lambda item: item.height):
        row = writer.block(record.block_hash)
        if row is not None and row.history is not None:
            writer.put_block(record.block_hash, replace(row, payload=record.location))
            continue
        if record.height <= finalized.height:
            writer.note_file(LogKind.BLOCKS, record.location, record.height)
            continue
        data, header = _header(blocks, record)
        writer.note_file(LogKind.BLOCKS, record.location, record.height)
        if header.parent_hash in known:
            known.add(record.block_hash)
            row = BlockRow(height=record.height, payload=record.location, history=None, header=data)
            writer.put_block(record.block_hash, row)


def _finalize_found(
    writer: Writer, history: SegmentLog, records: list[Record]
) -> list[tuple[bytes, BlockRow]]:
    """Finish finalizations that were synced but not committed; return what they abandon."""
    abandoned = []
    for record in records:
        finalized = writer.pointer(FINALIZED)
        row = writer.block(record.block_hash)
        assert finalized is not None
        data, header = _header(history, record)
        if row is None or header.parent_hash != finalized.block_hash:
            path = history.path(record.location.segment)
            why = f"its parent is not the finalized block at height {finalized.height}"
            raise damaged(path, record.location.offset, why)
        writer.put_block(record.block_hash, replace(row, history=record.location, header=data))
        newest = Pointer(height=record.height, block_hash=record.block_hash)
        writer.set_pointer(FINALIZED, newest)
        abandoned += forget_abandoned(writer, newest)
    return abandoned
