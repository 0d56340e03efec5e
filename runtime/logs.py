"""The log of a process: lines on stderr, for people or for programs, one INFO line per block.

Only shells log (`node.py`, `cli/`); what they call returns effects or reports. A line has a time in
UTC, a level, an event in a few words, and fields; bytes are written as hex digits. A line that the
disk does not take is counted and given up: a ledger does not stop because its log is full.
"""

import logging
from collections.abc import MutableMapping
from typing import Any, Literal, TextIO, cast

import structlog

LogLevel = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["auto", "text", "json"]
LEVELS: dict[LogLevel, int] = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
Logger = structlog.typing.FilteringBoundLogger


class LogStream:
    """A stream that counts what it could not write instead of raising."""

    def __init__(self, stream: TextIO) -> None:
        """Write to `stream`."""
        self.lost_count = 0
        """lines that were not written"""
        self._stream = stream

    def isatty(self) -> bool:
        """Say whether a person reads it."""
        return self._stream.isatty()

    def write(self, text: str) -> None:
        """Write a line, and flush it."""
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):  # a full disk, a pipe without reader, a closed stream
            self.lost_count += 1

    def flush(self) -> None:
        """Do nothing: every line is flushed when it is written."""


def open_log(level: LogLevel, form: LogFormat, stream: LogStream) -> Logger:
    """Return a logger that writes to `stream`; `auto` is text on a terminal and JSON elsewhere."""
    is_text = form == "text" or (form == "auto" and stream.isatty())
    last: structlog.typing.Processor = structlog.processors.JSONRenderer()
    if is_text:
        last = structlog.dev.ConsoleRenderer(colors=stream.isatty())
    processors: list[structlog.typing.Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        write_bytes_as_hex,
        structlog.processors.format_exc_info,
        last,
    ]
    if is_text:
        # The text renderer lays exceptions out itself.
        processors.remove(structlog.processors.format_exc_info)
    logger: Logger = structlog.wrap_logger(
        structlog.WriteLogger(cast(TextIO, stream)),
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        cache_logger_on_first_use=True,
    )
    return logger


def write_bytes_as_hex(
    _logger: Any, _method: str, fields: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Turn hashes and keys of a line into their hex digits."""
    for name, value in fields.items():
        if isinstance(value, bytes):
            fields[name] = value.hex()
    return fields
