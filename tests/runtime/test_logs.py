"""The log: one line per event, JSON where a program reads, hashes as hex digits."""

import io
import json
from contextlib import suppress
from pathlib import Path

from runtime.logs import LogStream, open_log


def test_lines_are_json_where_no_terminal_reads() -> None:
    """Each event is one JSON object with time in UTC, level, event and fields; bytes are hex."""
    stream = io.StringIO()
    log = open_log("info", "auto", LogStream(stream))
    log.info("block", height=7, block_hash=b"\x01\xff")
    log.debug("not urgent enough")
    try:
        raise ValueError("with a reason")
    except ValueError as error:
        log.error("failed", exc_info=error)
    first, second = (json.loads(line) for line in stream.getvalue().splitlines())
    assert first.pop("timestamp").endswith("Z")
    assert first == {"event": "block", "level": "info", "height": 7, "block_hash": "01ff"}
    assert "ValueError: with a reason" in second["exception"]


def test_text_is_for_people() -> None:
    """The text form has the same words on one line."""
    stream = io.StringIO()
    open_log("debug", "text", LogStream(stream)).warning("disk is nearly full", free_disk_bytes=5)
    (line,) = stream.getvalue().splitlines()
    for word in ("warning", "disk is nearly full", "free_disk_bytes=5"):
        assert word in line


def test_a_full_disk_costs_lines_and_nothing_else() -> None:
    """A line that cannot be written raises nothing and is counted."""
    with suppress(OSError), Path("/dev/full").open("w") as full:
        stream = LogStream(full)
        log = open_log("info", "json", stream)
        log.info("one")
        log.info("two")
        assert stream.lost_count == 2
        # Closing tries what the file still holds once more, and raises.
