"""What one node may choose for itself: `node.toml`, the environment, and flags.

A value comes from the first of flag, environment (`TOS_` and the key in capitals), file, default,
and remembers which (`Config.origins`). A key that nobody knows is refused with the nearest one that
exists: a misspelt key would silently keep its default. All values are integers or texts. What a
network agrees on is not here but in `constants.py` and `genesis.py`.
"""

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta

from kernels.backend import CHECK_BLOCKS, CROSSOVER_TRANSACTIONS
from runtime.errors import ExplainedError
from runtime.logs import LogFormat, LogLevel

FILE_NAME = "node.toml"
FILE_BYTES_MAX = 2**16
VARIABLE_PREFIX = "TOS_"
NEARNESS = 85
"""percent of likeness from which an unknown variable counts as one of ours, misspelt"""
INTEGER_MAX = 2**63 - 1

Device = Literal["auto", "cpu", "gpu"]
Count = Annotated[int, Meta(ge=0, le=INTEGER_MAX)]
Positive = Annotated[int, Meta(ge=1, le=INTEGER_MAX)]
Threads = Annotated[int, Meta(ge=0, le=1_024)]
Text = Annotated[str, Meta(max_length=4_096)]


class ConfigError(ExplainedError):
    """A setting that cannot be used. Codes begin with `config.`"""


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The keys of node.toml with their defaults; what each means stands in `MEANINGS`."""

    device: Device = "auto"
    device_crossover: Positive = CROSSOVER_TRANSACTIONS
    device_check_blocks: Count = CHECK_BLOCKS
    device_memory_mib: Count = 0
    threads: Threads = 0
    engine_api_address: Text = ""
    engine_api_secret_file: Text = ""
    http_address: Text = "127.0.0.1:8552"
    query_address: Text = "127.0.0.1:8553"
    keep_blocks: Count = 0
    snapshot_every: Positive = 1_024
    max_disk_bytes: Count = 0
    free_bytes_min: Count = 2**28
    log_level: LogLevel = "info"
    log_format: LogFormat = "auto"


KEYS = Settings.__struct_fields__

MEANINGS: Mapping[str, str] = {
    "device": "where blocks are executed: auto takes a GPU if there is one, else the CPU",
    "device_crossover": "transactions from which a block goes to the GPU; smaller ones stay on the "
    "CPU; `doctor --device gpu` measures it",
    "device_check_blocks": "every so many blocks on the GPU one is executed on the CPU as well and "
    "compared; 0 for none",
    "device_memory_mib": "of the GPU's memory that may be taken; 0 takes most of what is free",
    "threads": "of the CPU for execution; 0 takes every core that the process may use",
    "engine_api_address": "where consensus connects: unix: and a path, or a loopback host and a "
    "port; empty is the socket run/engine.sock in the home",
    "engine_api_secret_file": "64 hex digits that callers prove to know; needed at a TCP address",
    "http_address": "loopback host and port of /healthz, /readyz and /metrics; port 0 takes a free "
    "one; empty serves none",
    "query_address": "host and port of the HTTP interface for users, /v1; port 0 takes a free one; "
    "empty serves none; there is no password, so others than this machine come through a proxy",
    "keep_blocks": "finalized blocks whose payloads and receipts are kept; 0 keeps all",
    "snapshot_every": "blocks from one snapshot of the accounts to the next, 1 or more",
    "max_disk_bytes": "what the home may use; blocks are refused before it is full; 0 leaves it to "
    "the disk",
    "free_bytes_min": "what the home leaves free of its disk",
    "log_level": "the least urgent lines that are written: debug, info, warning or error",
    "log_format": "of the log on stderr: text for people, json for programs; auto is text on a "
    "terminal",
}
assert tuple(MEANINGS) == KEYS, "every key is explained, in the order of the keys"


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The settings of one node, and where each came from."""

    settings: Settings
    origins: Mapping[str, str]
    """key -> `default`, `FILE`, `environment NAME` or `flag --NAME`"""


def variable(key: str) -> str:
    """Return the environment variable of a key."""
    return f"{VARIABLE_PREFIX}{key.upper()}"


def flag(key: str) -> str:
    """Return the command line flag of a key."""
    return f"--{key.replace('_', '-')}"


def choices(key: str) -> tuple[str, ...]:
    """Return the words that a key takes; empty where it takes a number or any text."""
    kind = get_type_hints(Settings)[key]
    return get_args(kind) if get_origin(kind) is Literal else ()


def is_number(key: str) -> bool:
    """Say whether a key takes a number."""
    return isinstance(getattr(Settings(), key), int)


def load_config(
    home: Path,
    *,
    file: Path | None = None,
    environment: Mapping[str, str],
    flags: Mapping[str, str | int | None],
) -> Config:
    """Return the settings of a node. `file` None: node.toml in the home, if there is one.

    `flags` holds None for what was not given. Raises ConfigError for the first thing that is wrong.
    """
    values: dict[str, Any] = {}
    origins = dict.fromkeys(KEYS, "default")
    path = file or home.joinpath(FILE_NAME)
    if file is not None or path.exists():
        found = _read(path)
        _convert(found, dict.fromkeys(found, str(path)))
        values |= found
        origins |= dict.fromkeys(found, str(path))
    _check_variables(environment)
    for key in KEYS:
        text = environment.get(variable(key))
        if text is not None:
            values[key] = _parse(key, text)
            origins[key] = f"environment {variable(key)}"
    for key, value in flags.items():
        assert key in KEYS, key
        if value is not None:
            values[key] = value
            origins[key] = f"flag {flag(key)}"
    return Config(settings=_convert(values, origins), origins=origins)


def template() -> str:
    """Return a node.toml in which every key is explained and none is set."""
    lines = [
        "# Settings of this node. A flag goes before the environment, that before this file.",
        "# `python -m engine config show --home DIR` prints what holds and where it came from.",
    ]
    defaults = Settings()
    for key in KEYS:
        value = getattr(defaults, key)
        shown = f'"{value}"' if isinstance(value, str) else str(value)
        lines += ["", f"# {MEANINGS[key]}", f"# {key} = {shown}"]
    return "\n".join(lines) + "\n"


def _read(path: Path) -> dict[str, Any]:
    """Return what a file says, its keys known and its syntax right."""
    try:
        with path.open("rb") as file:
            data = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigError(
            "config.unreadable",
            what="the settings cannot be read",
            where=str(path),
            why=error.strerror or str(error),
            what_to_do="name another file with --config, or let this user read it",
        ) from error
    if len(data) > FILE_BYTES_MAX:
        raise ConfigError(
            "config.size",
            what=f"the file is larger than {FILE_BYTES_MAX} bytes",
            where=str(path),
            why="settings are a few lines",
            what_to_do="name the right file with --config",
        )
    try:
        found = tomllib.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ConfigError(
            "config.syntax",
            what="this is not TOML",
            where=str(path),
            why=str(error),
            what_to_do='correct the line; a setting is written as key = 1 or key = "text"',
        ) from error
    for key in found:
        if key not in KEYS:
            raise _unknown(key, str(path), "there is no setting of this name")
    return found


def _check_variables(environment: Mapping[str, str]) -> None:
    """Raise ConfigError for a variable that looks like one of ours and is none.

    Other programs may have variables with the same prefix, so only what is nearly one is refused.
    """
    known = [variable(key) for key in KEYS]
    for name in sorted(environment):
        if not name.startswith(VARIABLE_PREFIX) or name in known:
            continue
        rest = name.removeprefix(VARIABLE_PREFIX)
        for other in known:
            ratio = difflib.SequenceMatcher(None, rest, other.removeprefix(VARIABLE_PREFIX)).ratio()
            if ratio * 100 >= NEARNESS:
                raise _unknown(name, "the environment", f"the variable is {other}")


def _unknown(name: str, where: str, why: str) -> ConfigError:
    key = name.removeprefix(VARIABLE_PREFIX).lower()
    near = difflib.get_close_matches(key, KEYS, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"the settings are {', '.join(KEYS)}"
    return ConfigError(
        "config.unknown_key",
        what=f"there is no setting {name!r}",
        where=where,
        why=f"{why}; a misspelt one would silently keep its default",
        what_to_do=hint,
    )


def _parse(key: str, text: str) -> str | int:
    """Return the value in a variable's text; what is no number is refused by its type later."""
    if is_number(key) and text.isascii() and text.isdecimal() and len(text) <= len(str(2**63)):
        return int(text)
    return text


def _convert(values: dict[str, Any], origins: Mapping[str, str]) -> Settings:
    """Return checked settings, or raise ConfigError that names where the bad one came from."""
    try:
        return msgspec.convert(values, Settings, strict=True)
    except msgspec.ValidationError as error:
        message, _, place = str(error).partition(" - at ")
        key = place.strip("`").removeprefix("$.")
        words = choices(key) if key in KEYS else ()
        raise ConfigError(
            "config.value",
            what=f"{key or 'a setting'} cannot be {values.get(key)!r}",
            where=f"{key} from {origins.get(key, 'unknown')}",
            why=message,
            what_to_do=f"write one of {', '.join(words)}" if words else MEANINGS.get(key, ""),
        ) from error
