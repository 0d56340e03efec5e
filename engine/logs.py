"""The log of a process: lines on stderr, for people or for programs, one INFO line per block.

Only shells log (`node.py`, `cli/`); what they call returns effects or reports. A line has a time in
UTC, a level, an event in a few words, and fields; bytes are written as hex digits.
"""

import logging
import sys
from collections.abc import MutableMapping
from typing import Any, TextIO

import structlog

from engine.config import LogFormat, LogLevel

LEVELS: dict[LogLevel, int] = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
Logger = structlog.typing.FilteringBoundLogger


def open_log(level: LogLevel, form: LogFormat, stream: TextIO = sys.stderr) -> Logger:
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
        structlog.WriteLogger(stream),
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
