"""What a process may choose for itself: a TOML file, the environment, and flags, in layers.

A value comes from the first of flag, environment (a prefix and the key in capitals), file, default,
and remembers which (`Config.origins`). A key that nobody knows is refused with the nearest one that
exists: a misspelt key would silently keep its default. Values are integers or texts; lists of
tables stand in the file alone. Each program declares its own keys: `engine/config.py`,
`consensus/config.py`.
"""

import difflib
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, TypeVar, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta

from runtime.decoding import decodable
from runtime.errors import ExplainedError

FILE_NAME = "node.toml"
FILE_BYTES_MAX = 2**20
"""as a table for each of 1,024 peers takes, with long names of hosts"""
NEARNESS = 85
"""percent of likeness from which an unknown variable counts as one of ours, misspelt"""
INTEGER_MAX = 2**63 - 1

Count = Annotated[int, Meta(ge=0, le=INTEGER_MAX)]
Positive = Annotated[int, Meta(ge=1, le=INTEGER_MAX)]
Text = Annotated[str, Meta(max_length=4_096)]
S = TypeVar("S", bound=msgspec.Struct)
_INTEGER = re.compile("-?[0-9]{1,100}")


class ConfigError(ExplainedError):
    """A setting that cannot be used. Codes begin with `config.`"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Config(Generic[S]):
    """The settings of one node, and where each came from."""

    settings: S
    origins: Mapping[str, str]
    """key -> `default`, `FILE`, `environment NAME` or `flag --NAME`"""


def flag(key: str) -> str:
    """Return the command line flag of a key."""
    return f"--{key.replace('_', '-')}"


class Layers(Generic[S]):
    """The settings of one program: which there are, what they mean, and where they come from."""

    def __init__(
        self, settings: type[S], meanings: Mapping[str, str], *, prefix: str, program: str
    ) -> None:
        """Declare them.

        settings: a struct, frozen, with a default for every key, which refuses unknown ones; a key
        whose default is a tuple holds tables. meanings: of every key, in their order. prefix: of
        the variables. program: as a person types it.
        """
        self.settings = decodable(settings)
        self.meanings = meanings
        self.keys: tuple[str, ...] = settings.__struct_fields__
        self._prefix = prefix
        self._program = program
        self._defaults = settings()
        self._hints = get_type_hints(settings)
        assert tuple(meanings) == self.keys, "every key is explained, in the order of the keys"

    def is_table(self, key: str) -> bool:
        """Say whether a key holds tables, which only a file can have."""
        return isinstance(getattr(self._defaults, key), tuple)

    @property
    def plain_keys(self) -> tuple[str, ...]:
        """The keys that a variable and a flag can set."""
        return tuple(key for key in self.keys if not self.is_table(key))

    def variable(self, key: str) -> str:
        """Return the environment variable of a key."""
        return f"{self._prefix}{key.upper()}"

    def choices(self, key: str) -> tuple[str, ...]:
        """Return the words that a key takes; empty where it takes a number or any text."""
        kind = self._hints[key]
        return get_args(kind) if get_origin(kind) is Literal else ()

    def is_number(self, key: str) -> bool:
        """Say whether a key takes a number."""
        return isinstance(getattr(self._defaults, key), int)

    def load(
        self,
        home: Path,
        *,
        file: Path | None = None,
        environment: Mapping[str, str],
        flags: Mapping[str, str | int | None],
    ) -> Config[S]:
        """Return the settings of a node. `file` None: node.toml in the home, if there is one.

        `flags` holds None for what was not given. Raises ConfigError for the first thing that is
        wrong.
        """
        values: dict[str, Any] = {}
        origins = dict.fromkeys(self.keys, "default")
        path = file or home.joinpath(FILE_NAME)
        if file is not None or path.exists():
            found = self._read(path)
            self._convert(found, dict.fromkeys(found, str(path)))
            values |= found
            origins |= dict.fromkeys(found, str(path))
        self._check_variables(environment)
        for key in self.plain_keys:
            text = environment.get(self.variable(key))
            if text is not None:
                values[key] = self._parse(key, text)
                origins[key] = f"environment {self.variable(key)}"
        for key, value in flags.items():
            assert key in self.plain_keys, key
            if value is not None:
                values[key] = value
                origins[key] = f"flag {flag(key)}"
        return Config(settings=self._convert(values, origins), origins=origins)

    def template(self, **values: str | int) -> str:
        """Return a node.toml in which every key is explained; only those of `values` are set."""
        lines = [
            "# Settings of this node. A flag goes before the environment, that before this file.",
            f"# `{self._program} config show --home DIR` prints what holds and where it came from.",
        ]
        assert set(values) <= set(self.plain_keys), values
        for key in self.plain_keys:
            value = values.get(key, getattr(self._defaults, key))
            mark = "" if key in values else "# "
            lines += ["", f"# {self.meanings[key]}", f"{mark}{key} = {_toml(value)}"]
        for key in self.keys:
            if self.is_table(key):
                lines += ["", f"# {self.meanings[key]}", f"# [[{key}]]"]
        return "\n".join(lines) + "\n"

    def _read(self, path: Path) -> dict[str, Any]:
        """Return what a file says, its keys known and its syntax right."""
        found = read_toml(path)
        for key in found:
            if key not in self.keys:
                raise _unknown(key, self.keys, str(path), "there is no setting of this name")
            if self.is_table(key) and isinstance(found[key], list):
                members = get_args(self._hints[key])[0].__struct_fields__
                for index, table in enumerate(found[key]):
                    for name in table if isinstance(table, dict) else ():
                        if name not in members:
                            where = f"{path}, table {index + 1} of [[{key}]]"
                            raise _unknown(name, members, where, "such a table has no such key")
        return found

    def _check_variables(self, environment: Mapping[str, str]) -> None:
        """Raise ConfigError for a variable that looks like one of ours and is none.

        Other programs may have variables with the same prefix, so only what is nearly one is
        refused.
        """
        known = [self.variable(key) for key in self.plain_keys]
        for name in sorted(environment):
            if not name.startswith(self._prefix) or name in known:
                continue
            rest = name.removeprefix(self._prefix)
            for other in known:
                theirs = other.removeprefix(self._prefix)
                if difflib.SequenceMatcher(None, rest, theirs).ratio() * 100 >= NEARNESS:
                    why = f"the variable is {other}"
                    raise _unknown(name, self.keys, "the environment", why, self._prefix)

    def _parse(self, key: str, text: str) -> str | int:
        """Return the value in a variable's text; what is no number is refused by its type later."""
        if self.is_number(key) and _INTEGER.fullmatch(text):
            return int(text)
        return text

    def _convert(self, values: dict[str, Any], origins: Mapping[str, str]) -> S:
        """Return checked settings, or raise ConfigError that names where the bad one came from."""
        for key, value in values.items():
            if isinstance(value, str) and not value.isascii() and not _is_text(value):
                raise ConfigError(
                    "config.value",
                    what=f"{key} cannot be {value!r}",
                    where=f"{key} from {origins.get(key, 'unknown')}",
                    why="it has bytes that are no UTF-8",
                    what_to_do=self.meanings.get(key, ""),
                )
        try:
            return msgspec.convert(values, self.settings, strict=True)
        except msgspec.ValidationError as error:
            message, _, place = str(error).partition(" - at ")
            name = place.strip("`").removeprefix("$.")
            key = name.partition("[")[0]
            words = self.choices(key) if key in self.keys else ()
            value = f"{values.get(key)!r}" if name == key else "what stands there"
            raise ConfigError(
                "config.value",
                what=f"{name or 'a setting'} cannot be {value}",
                where=f"{key} from {origins.get(key, 'unknown')}",
                why=message,
                what_to_do=f"write one of {', '.join(words)}"
                if words
                else self.meanings.get(key, ""),
            ) from error


def _is_text(value: str) -> bool:
    """Say whether a text of the system is one that can be written down."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def read_toml(path: Path) -> dict[str, Any]:
    """Return what a file of settings says; raises ConfigError unless it is TOML, and small."""
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
        return tomllib.loads(data.decode("utf-8-sig"))  # some editors begin with a mark
    except (ValueError, RecursionError) as error:
        raise ConfigError(
            "config.syntax",
            what="this is not TOML",
            where=str(path),
            why=str(error),
            what_to_do='correct the line; a setting is written as key = 1 or key = "text"',
        ) from error


def toml_table(key: str, values: Mapping[str, str | int]) -> str:
    """Return one table of a list of tables as it stands in a file."""
    lines = [f"[[{key}]]", *(f"{name} = {_toml(value)}" for name, value in values.items())]
    return "\n".join(lines) + "\n"


def _toml(value: str | int) -> str:
    # Every JSON string is a TOML string, and escapes what needs it.
    return msgspec.json.encode(value).decode() if isinstance(value, str) else str(value)


def _unknown(
    name: str, keys: tuple[str, ...], where: str, why: str, prefix: str = ""
) -> ConfigError:
    key = name.removeprefix(prefix).lower()
    near = difflib.get_close_matches(key, keys, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"the settings are {', '.join(keys)}"
    return ConfigError(
        "config.unknown_key",
        what=f"there is no setting {name!r}",
        where=where,
        why=f"{why}; a misspelt one would silently keep its default",
        what_to_do=hint,
    )


def set_keys(text: str, values: Mapping[str, str | int]) -> str:
    """Return a file of settings in which these keys are set, in the places where they stand.

    A key that stands nowhere, not even as a comment, is added before the first table.
    """
    lines = text.splitlines()
    for key, value in values.items():
        line = f"{key} = {_toml(value)}"
        places = [
            index
            for index, found in enumerate(lines)
            if found.removeprefix("# ").startswith(f"{key} = ")
        ]
        if places:
            lines[places[0]] = line
            continue
        tables = [index for index, found in enumerate(lines) if found.startswith("[")]
        lines.insert(tables[0] if tables else len(lines), line)
    return "\n".join(lines) + "\n"
