"""A home of consensus: what stands in it, and how it is made, key and journal in one step.

    node.toml       settings, explained
    chain.json      what all nodes agree on before the first block (`chain_file.py`)
    genesis.json    as its makers wrote it, with its accounts file where it has one
    keys/           validator.json: the key, readable by its owner alone; or transport.json
    journal         what this validator signed (`journal.py`)
    store/          final blocks
    run/            addresses and logs of the processes that run
    executor/       home of the executor that this node starts
    LOCK            held by the process that has the home open

W3: `create_home` writes the journal first and the key last, so that a key which is there has the
journal that it began with; nothing else ever makes either. A home without a validator's key is a
follower's. Spec: spec/consensus.md#journal.
"""

import filecmp
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from consensus.chain_file import CHAIN_NAME, ChainError, ChainFile, parse_chain, read_chain
from consensus.core.journal import empty_journal, observer_journal
from consensus.journal import JournalDamaged, create_journal, read_journal
from runtime.decoding import decodable
from runtime.durable import sync_folder, write_file
from runtime.errors import ExplainedError
from runtime.keystore import KeyEntry, Keystore
from runtime.lock import FolderInUse, FolderLock
from runtime.settings import FILE_NAME, set_keys

GENESIS_NAME = "genesis.json"
JOURNAL_NAME = "journal"
VALIDATOR_NAME = "validator"
TRANSPORT_NAME = "transport"
ACCOUNTS_SUFFIX = "-accounts.arrow"
COMMAND_MAX_S = 600
"""for a command of the executor: a genesis of ten million accounts takes its time"""


class HomeError(ExplainedError):
    """A home that cannot be made or opened. Codes begin with `home.`"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Home:
    """The places in a home; nothing is read or written by naming them."""

    folder: Path

    @property
    def genesis(self) -> Path:
        """Genesis as its makers wrote it."""
        return self.folder.joinpath(GENESIS_NAME)

    @property
    def journal(self) -> Path:
        """What this validator signed."""
        return self.folder.joinpath(JOURNAL_NAME)

    @property
    def executor(self) -> Path:
        """Home of the own executor."""
        return self.folder.joinpath("executor")

    @property
    def run(self) -> Path:
        """What belongs to the processes that run."""
        return self.folder.joinpath("run")

    @property
    def executor_log(self) -> Path:
        """What the own executor says."""
        return self.run.joinpath("executor.log")

    @property
    def http_address(self) -> Path:
        """Where the pages of the running node are, as text."""
        return self.run.joinpath("http_address")

    @property
    def keys(self) -> Keystore:
        """The keys."""
        return Keystore(self.folder.joinpath("keys"))

    def genesis_names(self) -> list[str]:
        """Return the names of the files of the genesis."""
        accounts = self.folder.glob(f"*{ACCOUNTS_SUFFIX}")
        return [GENESIS_NAME, *sorted(path.name for path in accounts)]

    def is_made(self) -> bool:
        """Say whether this is a home: `create_home` writes the key last."""
        return self.entry() is not None

    def entry(self) -> KeyEntry | None:
        """Return the key of the node, a validator's or a follower's; None where there is none."""
        names = self.keys.names()
        for name in (VALIDATOR_NAME, TRANSPORT_NAME):
            if name in names:
                return self.keys.get(name)
        return None

    def is_follower(self) -> bool:
        """Say whether the home has no validator's key."""
        return VALIDATOR_NAME not in self.keys.names()

    def chain(self) -> ChainFile:
        """Return what all nodes agree on; raises ChainError."""
        return read_chain(self.folder.joinpath(CHAIN_NAME))


@dataclass(frozen=True, slots=True, kw_only=True)
class NewHome:
    """What a home is made of."""

    genesis: Path
    chain: bytes
    """chain.json, as the executor's command printed it"""
    key_name: str
    """VALIDATOR_NAME, or TRANSPORT_NAME for a follower"""
    seed: bytes
    password: str | None
    observer_since_ms: int | None
    """W3: for a key that may have signed elsewhere, the wall time of now; None for a new key"""
    settings: str
    """text of node.toml"""
    executor_settings: Mapping[str, str | int]


def create_home(home: Home, new: NewHome) -> KeyEntry:
    """Make a home in a folder that is none yet; what was cut off is made anew by a repetition.

    A folder that holds something of another chain stays as it is. Raises HomeError, ChainError,
    KeystoreError, OSError.
    """
    folder = home.folder
    chain = parse_chain(new.chain, str(new.genesis))
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(folder, error) from error
    with lock_home(home):
        check_place(home, chain, new.genesis)
        _prepare_journal(home.journal)
        # Before all else, and durably: it says of which chain everything is that comes after it.
        write_file(folder.joinpath(CHAIN_NAME), [new.chain])
        _copy_genesis(new.genesis, home.genesis)
        settings_path = folder.joinpath(FILE_NAME)
        if not settings_path.exists():
            settings_path.write_text(new.settings)
        _create_executor(home, new)
        is_new = new.observer_since_ms is None
        create_journal(
            home.journal,
            empty_journal() if is_new else observer_journal(new.observer_since_ms or 0),
        )
        entry = home.keys.add(new.key_name, new.seed, new.password)
        sync_folder(home.keys.folder)
        sync_folder(folder)
    return entry


def check_place(home: Home, chain: ChainFile, genesis: Path) -> None:
    """Raise HomeError unless the home of a chain can be made here with nothing lost.

    Nothing is changed. `genesis`: the file that would be copied. A creation of the same chain that
    was cut off may be repeated. Raises OSError, too.
    """
    there = genesis_hash_there(home)
    if there is not None and there != chain.genesis_hash:
        raise HomeError(
            "home.other_genesis",
            what="this folder belongs to another chain; nothing was changed",
            where=str(home.folder),
            why=f"its genesis hash is {there}, that of {genesis} is {chain.genesis_hash}",
            what_to_do="choose another --home, or move this folder away",
        )
    if home.is_made():
        same = "of this very chain " if there is not None else ""
        raise HomeError(
            "home.exists",
            what=f"this is the home of a node {same}already; nothing was changed",
            where=str(home.folder),
            why="a home is made once, with its key and its journal",
            what_to_do="start it with `python -m consensus run`, or choose another --home",
        )
    if there is None:
        for path in _strange_files(home, genesis):
            raise HomeError(
                "home.other_files",
                what="this folder holds what a new home would take the place of",
                where=str(path),
                why=f"without {CHAIN_NAME} beside it nobody knows of which chain it is",
                what_to_do="choose another --home, or move it away",
            )


def genesis_hash_there(home: Home) -> str | None:
    """Return of which chain a folder is, by its chain.json; None: it has none that can be read."""
    try:
        return home.chain().genesis_hash
    except ChainError:
        return None


def _strange_files(home: Home, genesis: Path) -> list[Path]:
    """Return what stands where a home has something, put there by nobody who made one."""
    found = [path for path in (home.executor, home.folder.joinpath("store")) if path.exists()]
    for source, target in _genesis_files(genesis, home.genesis):
        if target.exists() and not filecmp.cmp(source, target, shallow=False):
            found.append(target)
    return found


def lock_home(home: Home) -> FolderLock:
    """Keep every other process out; raises HomeError that names who is in."""
    try:
        return FolderLock(home.folder)
    except FolderInUse as error:
        raise HomeError(
            "home.locked",
            what=f"the process {error.holder} has this home open",
            where=str(error.path),
            why="two processes would sign with one key",
            what_to_do="stop that process, or name another home",
        ) from error
    except OSError as error:
        raise _unwritable(home.folder, error) from error


def _unwritable(folder: Path, error: OSError) -> HomeError:
    return HomeError(
        "home.unwritable",
        what="the home cannot be opened for writing",
        where=str(folder),
        why=error.strerror or str(error),
        what_to_do="give this user write access to the home, or choose another one",
    )


def describe_genesis(genesis: Path) -> bytes:
    """Return chain.json of a genesis, printed by the executor's command. Raises HomeError."""
    return ask_executor("genesis", "show", "--genesis", str(genesis), "--json")


def ask_executor(*arguments: str) -> bytes:
    """Run a command of the executor and return what it printed; raises HomeError with its words."""
    command = [sys.executable, "-m", "engine", *arguments]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=COMMAND_MAX_S,
            check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise _failed(arguments, f"it does not end within {COMMAND_MAX_S} s") from error
    if done.returncode:
        raise _failed(arguments, done.stderr.decode("utf-8", "replace").strip())
    return done.stdout


def executor_command(home: Home, device: str) -> Sequence[str]:
    """Return how the executor of a home is started."""
    return (
        sys.executable, "-m", "engine", "run", "--home", str(home.executor.absolute()),
        "--device", device,
    )  # fmt: skip


def _failed(arguments: Sequence[str], why: str) -> HomeError:
    return HomeError(
        "home.executor_command",
        what=f"the executor's command `{' '.join(arguments[:2])}` failed",
        where=f"python -m engine {' '.join(arguments)}",
        why=textwrap.indent(f"\n{why}", "    ") if why else "it said nothing",
        what_to_do="put right what it says, then try again",
    )


def _prepare_journal(path: Path) -> None:
    """Remove the journal of a creation that was cut off; refuse one that somebody signed with."""
    if not path.exists():
        return
    try:
        records = read_journal(path).records
    except JournalDamaged as error:
        raise _orphan(path, str(error)) from error
    is_fresh = records == empty_journal() or (
        len(records) == len(observer_journal(0)) and records[1][:1] == observer_journal(0)[1][:1]
    )
    if not is_fresh:
        raise _orphan(path, f"it holds {len(records)} records")
    path.unlink()


def _orphan(path: Path, why: str) -> HomeError:
    return HomeError(
        "home.journal_without_key",
        what="there is a journal without the key that it belongs to",
        where=str(path),
        why=f"{why}; whoever loses a journal may sign twice",
        what_to_do="bring keys/validator.json back, or choose another --home for a new key",
    )


@decodable
class _GenesisFile(msgspec.Struct):
    """What a copy has to know of a genesis; its executor has read all of it before."""

    accounts_file: str | None = None


def _genesis_files(source: Path, target: Path) -> list[tuple[Path, Path]]:
    """Return what is copied where: genesis, and the accounts file beside it if it names one."""
    files = [(source, target)]
    path = Path(msgspec.json.decode(source.read_bytes(), type=_GenesisFile).accounts_file or "")
    # Only such a name is shown to those who follow, so that no other file ever is.
    if path.name.endswith(ACCOUNTS_SUFFIX) and path == Path(path.name):
        files.append((source.with_name(path.name), target.with_name(path.name)))
    return [(file, copy) for file, copy in files if file.resolve() != copy.resolve()]


def _copy_genesis(source: Path, target: Path) -> None:
    """Copy genesis and its accounts; the genesis last, since it names the others."""
    for file, copy in reversed(_genesis_files(source, target)):
        shutil.copyfile(file, copy)


def _create_executor(home: Home, new: NewHome) -> None:
    """Make the executor's home, unless a creation that was cut off had made it."""
    if not home.executor.joinpath("FORMAT").exists():
        ask_executor("init", "--genesis", str(new.genesis), "--home", str(home.executor))
    path = home.executor.joinpath(FILE_NAME)
    path.write_text(set_keys(path.read_text(), new.executor_settings))
