"""Sorted runs: an index on disk that takes whole blocks at once and is merged in the background.

A run has two columns, keys ascending and a value per key, for a span of heights. New blocks become
runs of their own, in memory; `FANOUT` neighbours of one level are merged into one of the next, a
file, so that there are few. Nothing here is the only copy of anything: a run that is missing or
damaged is removed and its heights are indexed again. Spec: spec/storage.md#indexes.
"""

import mmap
import os
import re
import struct
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise, starmap
from pathlib import Path

import numpy as np
from blake3 import blake3

from engine.constants import context_key
from engine.store.errors import FULL_ERRNOS, StoreFull, full
from kernels.layout import U64
from kernels.sorting import merge
from runtime.durable import whole_file, write_all

RUN_VERSION = 1
FANOUT = 8
"""Runs of one level that become one of the next: every level writes each entry once more, and a
lookup reads every run."""
RUNS_MAX = 96
"""From so many on, adding a block merges first."""
HELD_ENTRIES_MAX = 2**22
"""From so many entries in memory on, adding a block writes them first: 64 MiB."""
MERGE_ENTRIES = 2**17
"""Entries that a merge holds in memory at a time, about."""
MAGIC = b"TOSSRUNS"
HEAD_BYTES = 128
CHECK_BYTES = 32
_HEAD = struct.Struct("<8sIIQQQ24s32s")
_KEY = context_key("tos store run v1")
_NAME = re.compile(r"(\d{20})-(\d{20})\.run")
assert _HEAD.size + CHECK_BYTES == HEAD_BYTES


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Run:
    """A run that can be looked up: its columns are mapped from a file, or held in memory."""

    path: Path | None
    """None of a block that is in no file yet"""
    first: int
    """least height that it covers"""
    last: int
    """greatest height that it covers"""
    level: int
    keys: U64
    """(n,) uint64, ascending"""
    values: U64
    """(n,) uint64: height * 2^32 + index; ascending among equal keys"""

    @property
    def disk_bytes(self) -> int:
        """Bytes of the file."""
        return 0 if self.path is None else HEAD_BYTES + 16 * len(self.keys)

    def remove(self) -> None:
        """Remove the file; who has its columns can still read them."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)


def entry_values(height: int, indexes: U64) -> U64:
    """Return the values of a block's entries; indexes: (n,) uint64, positions in the payload."""
    assert 0 <= height < 2**32, height
    return indexes | np.uint64(height << 32)


def place_of(value: int) -> tuple[int, int]:
    """Return (height, index) of a value."""
    return value >> 32, value & 0xFFFF_FFFF


class SortedRuns:
    """The runs of one index. One thread adds; any thread looks up."""

    def __init__(self, folder: Path, genesis_hash: bytes) -> None:
        """Open every good run and remove the others; `removed` tells which and why."""
        self.folder = folder
        self._genesis = genesis_hash[:24]
        self._lock = threading.Lock()
        self._merger = ThreadPoolExecutor(1, thread_name_prefix=f"merge-{folder.name}")
        self._merge: Future[None] | None = None
        self._floor = 0
        self.removed: list[str] = []
        self._runs: tuple[Run, ...] = self._open_all()

    @property
    def runs(self) -> tuple[Run, ...]:
        """The open runs, ascending by height; they never overlap."""
        return self._runs

    @property
    def disk_bytes(self) -> int:
        """Bytes of all files."""
        return sum(run.disk_bytes for run in self._runs)

    def missing(self, first: int, last: int) -> list[tuple[int, int]]:
        """Return the spans of heights in [first, last] that no run covers."""
        spans, height = [], first
        for run in self._runs:
            if run.first > last:
                break
            if run.first > height:
                spans.append((height, run.first - 1))
            height = max(height, run.last + 1)
        if height <= last:
            spans.append((height, last))
        return spans

    def add(self, height: int, keys: U64, values: U64) -> None:
        """Add a block's entries, ascending by (key, value); a height that is covered is skipped.

        They stay in memory until they are merged, and are indexed again after a crash before that.
        Raises StoreFull.
        """
        if not self.missing(height, height):
            return
        while len(self._runs) >= RUNS_MAX:
            self.finish_merge()
            self._replace(self._cheapest())
        while sum(len(run.keys) for run in self._held()) >= HELD_ENTRIES_MAX:
            self.finish_merge()
            self._replace(_first_row(self._held()))
        run = Run(path=None, first=height, last=height, level=0, keys=keys, values=values)
        with self._lock:
            self._runs = tuple(sorted((*self._runs, run), key=lambda item: item.first))

    def find(self, key: int) -> list[int]:
        """Return all values of a key, ascending in height."""
        wanted = np.uint64(key)
        found: list[int] = []
        for run in self._runs:
            begin = int(run.keys.searchsorted(wanted))
            while begin < len(run.keys) and run.keys[begin] == wanted:
                found.append(int(run.values[begin]))
                begin += 1
        return found

    def newest(self, key: int, before: int, limit: int) -> list[int]:
        """Return up to `limit` values of a key below `before`, descending."""
        wanted = np.uint64(key)
        found: list[int] = []
        for run in reversed(self._runs):
            if len(found) >= limit:
                break
            if run.first << 32 >= before:
                continue
            begin = int(run.keys.searchsorted(wanted))
            end = int(run.keys.searchsorted(wanted, side="right"))
            values = run.values[begin:end]
            stop = int(values.searchsorted(np.uint64(min(before, 2**64 - 1))))
            part = values[max(0, stop - (limit - len(found))) : stop]
            found += part[::-1].tolist()
        return found

    def start_merge(self) -> bool:
        """Begin the next merge in the background if one is due and none is under way."""
        if self._merge is not None and not self._merge.done():
            return False
        self.finish_merge()
        group = self._due()
        if not group:
            return False
        self._merge = self._merger.submit(self._replace, group)
        return True

    def finish_merge(self) -> None:
        """Wait for the merge that is under way; raises what it raised."""
        merge, self._merge = self._merge, None
        if merge is not None:
            merge.result()

    def drop_below(self, floor: int) -> None:
        """Forget heights below `floor`: whole runs at once, entries of others when they merge."""
        self._floor = floor
        with self._lock:
            old = [run for run in self._runs if run.last < floor]
            self._runs = tuple(run for run in self._runs if run.last >= floor)
        for run in old:
            run.remove()

    def close(self) -> None:
        """Write what is in memory alone, where there is room, and end the thread of merges."""
        try:
            with suppress(StoreFull):  # what was to be merged stays, the rest is indexed again
                self.finish_merge()
                while held := self._held():
                    self._replace(_first_row(held))
        finally:
            self._merger.shutdown()

    def _held(self) -> Sequence[Run]:
        """Return the runs that are in no file."""
        return [run for run in self._runs if run.path is None]

    def _due(self) -> Sequence[Run]:
        """Return FANOUT neighbours of one level, or none.

        The oldest such group: newer ones would leave single runs behind that nobody merges.
        """
        runs = self._runs
        for start in range(len(runs) - FANOUT + 1):
            group = runs[start : start + FANOUT]
            if _is_row(group) and len({run.level for run in group}) == 1:
                return group
        return ()

    def _cheapest(self) -> Sequence[Run]:
        """Return the FANOUT neighbours with the fewest entries, whatever lies between them."""
        runs = self._runs
        groups = [runs[start : start + FANOUT] for start in range(len(runs) - FANOUT + 1)]
        rows = [group for group in groups if _is_row(group)] or [
            runs[start : start + 2]
            for start in range(len(runs) - 1)
            if _is_row(runs[start : start + 2])
        ]
        assert rows, "RUNS_MAX runs have neighbours unless every second height is missing"
        return min(rows, key=lambda group: sum(len(run.keys) for run in group))

    def _replace(self, group: Sequence[Run]) -> None:
        """Merge neighbours into one run and put it in their place."""
        if not group:
            return
        merged = self._write_merged(group)
        with self._lock:
            first, last = group[0].first, group[-1].last
            rest = [run for run in self._runs if run.last < first or run.first > last]
            if all(run in self._runs for run in group):
                self._runs = tuple(sorted((*rest, merged), key=lambda item: item.first))
            else:
                merged.remove()
                return
        for run in group:
            run.remove()

    def _write_merged(self, group: Sequence[Run]) -> Run:
        """Write the entries of all, part by part of the key space, and open the result."""
        floor = self._floor
        total = sum(len(run.keys) for run in group)
        largest = max(group, key=lambda run: len(run.keys))
        parts = -(-total // MERGE_ENTRIES)
        places = [len(largest.keys) * part // parts for part in range(1, parts)]
        cuts = [largest.keys[place] for place in places]
        bounds = [
            [0, *(int(run.keys.searchsorted(cut)) for cut in cuts), len(run.keys)] for run in group
        ]
        path = self._path(group[0].first, group[-1].last)
        try:
            with whole_file(path, is_durable=False) as file:
                kept = _kept_count(group, floor)
                written, checks = 0, (blake3(key=_KEY), blake3(key=_KEY))
                for part in range(len(cuts) + 1):
                    columns = _merge_part(group, [(b[part], b[part + 1]) for b in bounds], floor)
                    starts = (HEAD_BYTES + 8 * written, HEAD_BYTES + 8 * (kept + written))
                    for column, start, check in zip(columns, starts, checks, strict=True):
                        write_all(file, [_bytes(column)], start)
                        check.update(_bytes(column))
                    written += len(columns[0])
                assert written == kept, (written, kept)
                body_check = _checksum([check.digest() for check in checks])
                level = max(run.level for run in group) + 1
                head = self._head(group[0].first, group[-1].last, level, written, body_check)
                write_all(file, [head], 0)
                os.fdatasync(file)
        except OSError as error:
            if error.errno in FULL_ERRNOS:
                raise full(path, error.strerror or str(error)) from error
            raise
        return self._open_run(path, is_checked=False)

    def _path(self, first: int, last: int) -> Path:
        return self.folder / f"{first:020d}-{last:020d}.run"

    def _head(self, first: int, last: int, level: int, count: int, body_check: bytes) -> bytes:
        head = _HEAD.pack(MAGIC, RUN_VERSION, level, first, last, count, self._genesis, body_check)
        return head + _checksum([head])

    def _open_all(self) -> tuple[Run, ...]:
        """Open the good runs; remove damaged ones and those that a merge has replaced."""
        found: list[Run] = []
        for path in sorted(self.folder.iterdir()):
            if not _NAME.fullmatch(path.name):
                path.unlink()
                continue
            try:
                found.append(self._open_run(path, is_checked=True))
            except ValueError as error:
                self.removed.append(f"{path}: {error}; removed, its heights are indexed again")
                path.unlink()
        kept: list[Run] = []
        for run in sorted(found, key=lambda item: (item.first, -item.last)):
            if kept and run.first <= kept[-1].last:
                run.remove()
            else:
                kept.append(run)
        return tuple(kept)

    def _open_run(self, path: Path, *, is_checked: bool) -> Run:
        """Map a run; raises ValueError if it is not what was written."""
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
            size = path.stat().st_size
            if len(head) != HEAD_BYTES or _checksum([head[:-CHECK_BYTES]]) != head[-CHECK_BYTES:]:
                raise ValueError("its head has another checksum")
            magic, version, level, first, last, count, chain, check = _HEAD.unpack_from(head)
            if (magic, version, chain) != (MAGIC, RUN_VERSION, self._genesis):
                raise ValueError("it is of another chain or version")
            if size != HEAD_BYTES + 16 * count or path != self._path(first, last):
                raise ValueError(f"{count} entries do not make a file of {size} bytes")
            whole = np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)
        entries = whole[HEAD_BYTES:].view(np.uint64)
        if is_checked and _body_checksum(entries[:count], entries[count:]) != check:
            raise ValueError("its entries have another checksum")
        return Run(
            path=path,
            first=first,
            last=last,
            level=level,
            keys=entries[:count],
            values=entries[count:],
        )


def _bytes(column: U64) -> memoryview:
    return column.view(np.uint8).data


def _checksum(parts: Sequence[bytes | memoryview]) -> bytes:
    digest = blake3(key=_KEY)
    for part in parts:
        digest.update(part)
    return digest.digest()


def _body_checksum(keys: U64, values: U64) -> bytes:
    return _checksum([_checksum([_bytes(keys)]), _checksum([_bytes(values)])])


def _is_row(group: Sequence[Run]) -> bool:
    """Say whether runs follow one another without a gap."""
    return all(run.first == before.last + 1 for before, run in pairwise(group))


def _first_row(runs: Sequence[Run]) -> Sequence[Run]:
    """Return the first runs, as far as they follow one another without a gap."""
    gaps = (at + 1 for at, pair in enumerate(pairwise(runs)) if not _is_row(pair))
    return runs[: next(gaps, len(runs))]


def _kept_count(group: Sequence[Run], floor: int) -> int:
    """Return how many entries of the group stand at the floor or above it."""
    least = np.uint64(floor << 32)
    if group[0].first >= floor:
        return sum(len(run.keys) for run in group)
    return sum(int(np.count_nonzero(run.values >= least)) for run in group)


def _merge_part(group: Sequence[Run], spans: list[tuple[int, int]], floor: int) -> tuple[U64, U64]:
    """Return one part of the key space of all runs, ascending by (key, value)."""
    columns = [
        (run.keys[begin:end], run.values[begin:end])
        for run, (begin, end) in zip(group, spans, strict=True)
    ]
    # Neighbours: the runs stand in order of height, and so do values of one key.
    while len(columns) > 1:
        pairs = zip(columns[::2], columns[1::2], strict=False)
        columns = [*starmap(merge, pairs), *columns[len(columns) // 2 * 2 :]]
    keys, values = columns[0]
    if group[0].first < floor:
        is_kept = values >= np.uint64(floor << 32)
        return keys[is_kept], values[is_kept]
    return keys, values
