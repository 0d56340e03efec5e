"""What a wallet remembers of chains: bounded, beside the keys, and no hindrance where it cannot."""

from pathlib import Path

import msgspec
import pytest

from engine.cli.known_chains import CHAINS_MAX, FILE_NAME, check_chain
from engine.client import NodeError
from engine.queries.answers import BlockName, Status
from runtime.keystore import Keystore

URL = "http://127.0.0.1:1"


def status(chain: int, decimals: int = 9) -> Status:
    """Return what a node of a chain says."""
    place = BlockName(height=chain, hash="00" * 32)
    return Status(
        chain_id=7,
        genesis_hash=f"{chain:064x}",
        address_prefix="tos",
        symbol="TOS",
        decimals=decimals,
        account_minimum="1000",
        fee_minimum="1",
        head=place,
        safe=place,
        finalized=place,
        pending_count=chain,
        degraded="",
        software=str(chain),
    )


def test_the_first_word_counts(tmp_path: Path) -> None:
    """What genesis does not fix may differ; what it fixes may not; keys are not touched."""
    keys = tmp_path / "keys"
    assert check_chain(keys, status(1), URL) == ""
    moved = msgspec.structs.replace(status(1), pending_count=9, software="other")
    assert check_chain(keys, moved, URL) == ""
    with pytest.raises(NodeError) as refused:
        check_chain(keys, status(1, decimals=8), URL)
    assert (refused.value.code, refused.value.where) == ("wallet.chain_differs", URL)
    assert "decimals 8, not 9" in refused.value.what
    assert check_chain(keys, status(2, decimals=8), URL) == ""
    assert [path.name for path in keys.iterdir()] == [FILE_NAME]
    assert Keystore(keys).entries() == ([], [])


def test_the_oldest_of_many_is_forgotten(tmp_path: Path) -> None:
    """The file has a bound; the chains that were met last are known."""
    for chain in range(CHAINS_MAX + 1):
        assert check_chain(tmp_path, status(chain), URL) == ""
    for chain in (1, CHAINS_MAX):
        with pytest.raises(NodeError):
            check_chain(tmp_path, status(chain, decimals=8), URL)
    assert check_chain(tmp_path, status(0, decimals=8), URL) == ""


def test_a_folder_that_cannot_be_written_is_said() -> None:
    """Whoever has keys where nothing can be written pays all the same, and is told."""
    assert "is not kept" in check_chain(Path("/proc/no-folder"), status(1), URL)


@pytest.mark.parametrize("data", [b"", b"[]", b'{"chains": [{}]}', b"\xff", b" " * 2**19])
def test_a_damaged_file_is_named(tmp_path: Path, data: bytes) -> None:
    """Nothing is taken for an empty list."""
    path = tmp_path / FILE_NAME
    path.write_bytes(data)
    with pytest.raises(NodeError) as refused:
        check_chain(tmp_path, status(1), URL)
    assert (refused.value.code, refused.value.where) == ("wallet.chains", str(path))
