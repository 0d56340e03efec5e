"""What a device did in a block: kernels and copies apart, beside its own copy bandwidth.

Bytes are the least that a kernel has to move per thread, from the formats; a random access counts
with the 32 bytes that memory hands out at once. So a fraction says how far a kernel is from what
this device's memory can do, not how busy the memory was. Names are those of `kernels.gpu`.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from rich.console import Console
from rich.table import Table

from kernels.gpu.backend import GpuBackend
from kernels.gpu.device import Device
from kernels.gpu.meter import Span

COPY_BYTES: Final = 1 << 28
"""Moved at once to measure bandwidth: far more than any cache holds."""
COPIES: Final = 10

BYTES: Final = {
    "hash_transactions": 192 + 32,
    "hash_receipts": 32 + 1 + 1 + 8 + 32,
    "hash_messages": 192 + 32,
    "verify": 32 + 64 + 160 + 1,
    "gather_signed": 192 + 4 + 32 + 64 + 160,
    "hash_leaves": 128 + 32,
    "hash_all_leaves": 128 + 32,
    "hash_subtrees": 64 + 64,
    "hash_changed": 64 + 32,
    "find_keys": 32 + 32 + 32 + 4,
    "find_rows": 32 + 32 + 32 + 8,
    "claim_senders": 4 + 32,
    "release_senders": 4 + 32,
    "walk_short": 192 - 16 - 64 - 32 + 32 + 4 + 1,
    "judge_tiles": 8 * 74,
    "pay_tiles": 8 * 21,
    "flag_missing": 1 + 4 + 4,
    "list_missing": 4 + 4,
    "mark_changed": 2 * (4 + 32),
    "count_words": 8 + 4,
    "take_words": 8 + 4,
    "read_changed": 4 + 32 + 16,
    "debit_senders": 4 + 16 + 64,
    "credit_recipients": 4 + 1 + 8 + 64,
    "write_values": 4 + 16 + 64,
    "sum_tiles": 8 * (4 + 4),
    "add_tiles": 8 * (4 + 4),
    "copy_in": 1,
    "copy_back": 1,
}
"""kernel -> bytes per thread, of a copy per byte; others are launched for a few items alone

A thread of the two for tiles takes eight transactions."""


def pinned_payload(backend: GpuBackend, payload: bytes) -> memoryview:
    """Return a payload in pinned memory of the backend's device, read-only."""
    buffer = backend.device.pinned.take((len(payload),), np.uint8)
    buffer[:] = np.frombuffer(payload, np.uint8)
    buffer.flags.writeable = False
    return buffer.data


def bandwidths(device: Device) -> dict[str, float | None]:
    """Measure bytes per second of copies: within the device (read and written), to it and back."""
    size = min(COPY_BYTES, device.bytes_max >> 3)
    one, other = device.empty(size, np.uint8), device.empty(size, np.uint8)
    host = device.pinned.take((size,), np.uint8)
    host[:] = 0
    kept, meter = device.meter, device.new_meter()
    device.meter = None
    device.fetch(one)  # takes the buffer that all others use, which takes its time
    try:
        for _ in range(COPIES):
            with meter.span("within", 2 * size, device.stream):
                device.copy_within(one, other)
            with meter.span("to", size, device.stream):
                device.copy_in(host, one)
            with meter.span("from", size, device.stream):
                device.begin_fetch(one)
            device.wait()
        spans = meter.collect()
    finally:
        device.meter = kept
    return {name: per_s(span.items, span.ns) for name, span in spans.items()}


def per_s(amount: float, ns: int) -> float | None:
    """Return an amount per second; None where no time was measured."""
    return round(amount * 1e9 / ns, 1) if ns else None


def figures(
    device: Device, copies: dict[str, float | None], transactions: int, pinned_copy_ns: int
) -> dict[str, Any]:
    """Return the JSON values of a pass over so many transactions under the device's meter."""
    assert device.meter is not None, "the pass was measured"
    spans = device.meter.collect()
    kernels = {
        name: {
            "calls": span.calls,
            "threads": span.items,
            "ns_per_tx": round(span.ns / transactions, 3),
            "threads_per_s": per_s(span.items, span.ns),
            "bytes_per_s": per_s(span.items * BYTES[name], span.ns) if name in BYTES else None,
            "of_bandwidth": fraction(span, name, copies),
        }
        for name, span in spans.items()
    }
    return {
        "copy_bytes_per_s": copies,
        "kernels": kernels,
        "pinned_copy_ns_per_tx": round(pinned_copy_ns / transactions, 3),
        "compile_ns": dict(device.compile_ns),
    }


def fraction(span: Span, name: str, copies: dict[str, float | None]) -> float | None:
    """Return which part of the measured bandwidth a kernel's or a copy's least bytes are."""
    ceiling = copies[{"copy_in": "to", "copy_back": "from"}.get(name, "within")]
    if name not in BYTES or not span.ns or ceiling is None:
        return None
    return round(span.items * BYTES[name] * 1e9 / span.ns / ceiling, 3)


def print_figures(console: Console, rows: Sequence[dict[str, Any]]) -> None:
    """Print the device's part of the rows that have one."""
    for item in rows:
        if "device" not in item:
            continue
        found = item["device"]
        copies = {name: _giga(value) for name, value in found["copy_bytes_per_s"].items()}
        console.print(
            f"{item['workload']} on the device: its copies move {copies['within']} GB/s within it "
            f"(read and written), {copies['to']} GB/s to it, {copies['from']} GB/s back; the copy "
            f"into pinned memory, before the block, takes {found['pinned_copy_ns_per_tx']:.1f} "
            f"ns/tx; compiling {len(found['compile_ns'])} kernels, or loading what was compiled "
            f"before, took {sum(found['compile_ns'].values()) / 1e9:.1f} s",
            highlight=False,
        )
        console.print(_table(found["kernels"]))


def _giga(value: float | None) -> str:
    return "-" if value is None else f"{value / 1e9:,.1f}"


def _table(kernels: dict[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("on the device")
    for name in ("calls", "ns/tx", "M threads/s", "GB/s at least", "of bandwidth"):
        table.add_column(name, justify="right")
    for name, item in sorted(kernels.items(), key=lambda pair: -pair[1]["ns_per_tx"]):
        threads = item["threads_per_s"]
        table.add_row(
            name, f"{item['calls']:,}", f"{item['ns_per_tx']:,.2f}",
            "-" if threads is None else f"{threads / 1e6:,.0f}", _giga(item["bytes_per_s"]),
            "-" if item["of_bandwidth"] is None else f"{item['of_bandwidth']:.0%}",
        )  # fmt: skip
    return table
