"""A home is made once, key and journal in one step; what was cut off can be repeated."""

import json
import stat
from pathlib import Path

import pytest

from consensus.core import journal as core
from consensus.home import (
    TRANSPORT_NAME,
    VALIDATOR_NAME,
    Home,
    HomeError,
    NewHome,
    ask_executor,
    create_home,
    describe_genesis,
    lock_home,
)
from consensus.journal import create_journal, read_journal
from runtime.keypair import KeyPair
from runtime.keystore import KeystoreError

SEED = bytes(range(32))
PAIR = KeyPair.of(SEED)


def make_genesis(folder: Path, *, power: int, accounts: int) -> Path:
    """Return a genesis of one validator, with an accounts file."""
    members = folder / "validators.json"
    members.write_text(json.dumps([{"public_key": f"0x{PAIR.public_key.hex()}", "power": power}]))
    path, count = folder / "genesis.json", str(accounts)
    ask_executor(
        "genesis", "new", "--out", str(path), "--validators", str(members), "--accounts", count
    )
    return path


@pytest.fixture(scope="module")
def genesis(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the genesis of a chain."""
    return make_genesis(tmp_path_factory.mktemp("genesis"), power=1, accounts=10_001)


@pytest.fixture(scope="module")
def chain(genesis: Path) -> bytes:
    """Return its chain.json."""
    return describe_genesis(genesis)


@pytest.fixture(scope="module")
def other_genesis(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the genesis of another chain, its accounts in a file of the same name."""
    return make_genesis(tmp_path_factory.mktemp("other"), power=2, accounts=10_002)


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder, but for the lock that is taken to look."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != "LOCK")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def new_home(genesis: Path, chain: bytes, since_ms: int | None = None) -> NewHome:
    """Return what the homes of this file are made of."""
    return NewHome(
        genesis=genesis,
        chain=chain,
        key_name=VALIDATOR_NAME,
        seed=SEED,
        password=None,
        observer_since_ms=since_ms,
        settings="# nothing\n",
        executor_settings={"query_address": "", "a_new_key": "x"},
    )


def test_a_home_is_complete(tmp_path: Path, genesis: Path, chain: bytes) -> None:
    """Key, journal, chain, genesis with its accounts, settings and the executor's home."""
    home = Home(folder=tmp_path / "h")
    entry = create_home(home, new_home(genesis, chain))
    assert entry.public_key == PAIR.public_key
    assert stat.S_IMODE(entry.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(home.folder.stat().st_mode) == 0o700
    assert read_journal(home.journal).records == core.empty_journal()
    assert home.chain().accounts == 10_001
    assert home.chain().validator_sets[0][0].public_key == PAIR.public_key.hex()
    assert describe_genesis(home.genesis) == chain
    text = home.executor.joinpath("node.toml").read_text()
    assert 'query_address = ""' in text
    assert 'a_new_key = "x"' in text
    assert not home.is_follower()
    before = contents(home.folder)
    with pytest.raises(HomeError, match="of this very chain already") as caught:
        create_home(home, new_home(genesis, chain))
    assert caught.value.code == "home.exists"
    assert contents(home.folder) == before


def test_an_imported_key_begins_as_an_observer(tmp_path: Path, genesis: Path, chain: bytes) -> None:
    """Its journal says since when, so that what it signed elsewhere is outlived."""
    home = Home(folder=tmp_path)
    create_home(home, new_home(genesis, chain, since_ms=1_234))
    replayed = core.replay(read_journal(home.journal).records)
    assert replayed.observer_since_ms == 1_234


def test_a_creation_that_was_cut_off_is_repeated(
    tmp_path: Path, genesis: Path, chain: bytes
) -> None:
    """Without a key there was no node: the journal of the first try has signed nothing."""
    home = Home(folder=tmp_path)
    entry = create_home(home, new_home(genesis, chain, since_ms=5))
    entry.path.unlink()
    assert not home.is_made()
    create_home(home, new_home(genesis, chain))
    assert read_journal(home.journal).records == core.empty_journal()


@pytest.mark.parametrize("is_whole", [True, False])
def test_a_home_of_another_chain_is_left_alone(
    tmp_path: Path, genesis: Path, chain: bytes, other_genesis: Path, *, is_whole: bool
) -> None:
    """Whole or cut off: both hashes are named, and no file is touched, the executor's included."""
    home = Home(folder=tmp_path)
    entry = create_home(home, new_home(genesis, chain, since_ms=5))
    if not is_whole:
        entry.path.unlink()
    before = contents(tmp_path)
    other_chain = describe_genesis(other_genesis)
    with pytest.raises(HomeError, match="nothing was changed") as caught:
        create_home(home, new_home(other_genesis, other_chain))
    assert caught.value.code == "home.other_genesis"
    for data in (chain, other_chain):
        assert json.loads(data)["genesis_hash"] in caught.value.why
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    "name", ["genesis.json", "genesis-accounts.arrow", "executor/FORMAT", "store/data.mdb"]
)
def test_files_of_an_unknown_chain_are_left_alone(
    tmp_path: Path, genesis: Path, chain: bytes, name: str
) -> None:
    """Without a chain.json nothing that a home would take the place of is overwritten."""
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"somebody's")
    with pytest.raises(HomeError) as caught:
        create_home(Home(folder=tmp_path), new_home(genesis, chain))
    assert caught.value.code == "home.other_files"
    assert caught.value.where in (str(path), str(path.parent))
    assert contents(tmp_path) == {name: b"somebody's"}


def test_a_genesis_may_lie_in_the_folder_of_its_home(
    tmp_path: Path, genesis: Path, chain: bytes
) -> None:
    """Under its own name or another one, with its accounts beside it: they stay what they are."""
    accounts = genesis.with_name("genesis-accounts.arrow")
    for folder, name in ((tmp_path / "a", "genesis.json"), (tmp_path / "b", "mine.json")):
        folder.mkdir()
        folder.joinpath(name).write_bytes(genesis.read_bytes())
        folder.joinpath(accounts.name).write_bytes(accounts.read_bytes())
        create_home(Home(folder=folder), new_home(folder / name, chain))
        assert describe_genesis(folder / "genesis.json") == chain


def test_a_journal_that_somebody_signed_with_is_kept(
    tmp_path: Path, genesis: Path, chain: bytes
) -> None:
    """Whoever moved the key away does not lose the journal that belongs to it."""
    home = Home(folder=tmp_path)
    records = (*core.empty_journal(), b"\x02 a vote")
    create_journal(home.journal, records)
    with pytest.raises(HomeError) as caught:
        create_home(home, new_home(genesis, chain))
    assert caught.value.code == "home.journal_without_key"
    assert read_journal(home.journal).records == records
    home.journal.write_bytes(b"garbage")
    with pytest.raises(HomeError) as caught:
        create_home(home, new_home(genesis, chain))
    assert caught.value.code == "home.journal_without_key"
    assert home.journal.read_bytes() == b"garbage"


def test_keys_of_a_wallet_are_no_node(tmp_path: Path) -> None:
    """A folder of other keys is no home; a transport key makes a follower's."""
    home = Home(folder=tmp_path)
    home.keys.add("alice", SEED, None)
    assert not home.is_made()
    home.keys.add(TRANSPORT_NAME, SEED, None)
    assert (home.is_made(), home.is_follower()) == (True, True)
    entry = home.entry()
    assert entry is not None
    assert entry.name == TRANSPORT_NAME


def test_a_home_is_opened_once(tmp_path: Path) -> None:
    """The second one is told who has it."""
    home = Home(folder=tmp_path)
    with lock_home(home), pytest.raises(HomeError) as caught:
        lock_home(home)
    assert caught.value.code == "home.locked"
    lock_home(home).release()


def test_a_home_that_cannot_be_written_is_explained(genesis: Path, chain: bytes) -> None:
    """Nothing has begun: neither a lock nor a folder could be made."""
    home = Home(folder=Path("/proc/tos"))
    for attempt in (lambda: lock_home(home), lambda: create_home(home, new_home(genesis, chain))):
        with pytest.raises(HomeError) as caught:
            attempt()
        assert (caught.value.code, caught.value.where) == ("home.unwritable", "/proc/tos")


def test_what_the_executor_says_is_passed_on(tmp_path: Path, chain: bytes) -> None:
    """A genesis that it refuses makes no home, and its words are shown."""
    bad = tmp_path / "genesis.json"
    bad.write_text("{}")
    with pytest.raises(HomeError, match=r"genesis\.field"):
        describe_genesis(bad)
    home = Home(folder=tmp_path / "h")
    with pytest.raises(HomeError, match=r"genesis\.field"):
        create_home(home, new_home(bad, chain))
    assert not home.is_made()
    with pytest.raises(KeystoreError):
        home.keys.get(VALIDATOR_NAME)
