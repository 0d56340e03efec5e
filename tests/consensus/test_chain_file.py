"""chain.json: what it gives, and what is refused of one that was changed."""

import json
from pathlib import Path
from typing import Any

import pytest

from consensus.chain_file import FILE_BYTES_MAX, ChainError, parse_chain, read_chain
from consensus.core.types import Parameters
from runtime.keypair import MIXED_KEY, KeyPair

KEYS = sorted(KeyPair.of(bytes([n]) * 32).public_key.hex() for n in (1, 2))
NAMES = tuple(Parameters.__dataclass_fields__)


def example() -> dict[str, Any]:
    """Return the file as JSON values."""
    first = {"public_key": KEYS[0], "power": 1}
    second = {"public_key": KEYS[1], "power": 2**62}
    return {
        "chain_id": 7,
        "genesis_hash": "aa" * 32,
        "params_hash": "bb" * 32,
        "timestamp_ms": 5,
        "address_prefix": "tos",
        "symbol": "TOS",
        "accounts": 3,
        "parameters": {name: 1_000 + number for number, name in enumerate(NAMES)}
        | {"unfinalized_max": 8},
        "validator_sets": [[first], [first, second]],
    }


def test_a_chain_is_what_the_file_says() -> None:
    """Hashes and keys are bytes, and both sets are there."""
    chain = parse_chain(json.dumps(example()).encode(), "here").chain
    assert chain.genesis_hash == b"\xaa" * 32
    assert chain.parameters.evidence_window_epochs == 1_000 + len(NAMES) - 1
    assert [len(members) for members in chain.validators] == [1, 2]
    assert chain.validators[1][1].power == 2**62


@pytest.mark.parametrize(
    "change",
    [
        {"chain_id": 0},
        {"chain_id": "7"},
        {"genesis_hash": "aa"},
        {"other": 1},
        {"parameters": {}},
        {"validator_sets": [[]]},
        {"validator_sets": [[{"public_key": KEYS[0], "power": 0}]] * 2},
        {"validator_sets": [[{"public_key": KEYS[0], "power": 1}] * 2] * 2},
        {"validator_sets": [[{"public_key": key, "power": 2**62} for key in KEYS]] * 2},
        {"validator_sets": [[{"public_key": key, "power": 1} for key in KEYS[::-1]]] * 2},
    ],
)
def test_a_changed_file_is_refused(change: dict[str, Any], tmp_path: Path) -> None:
    """A file that lacks something, or has it in another form, says where it lies."""
    path = tmp_path / "chain.json"
    path.write_text(json.dumps(example() | change))
    with pytest.raises(ChainError) as caught:
        read_chain(path)
    assert str(path) in str(caught.value)


def test_a_file_that_is_missing_or_too_large_is_refused(tmp_path: Path) -> None:
    """No bytes of it are parsed."""
    with pytest.raises(ChainError, match="No such file"):
        read_chain(tmp_path / "chain.json")
    (tmp_path / "chain.json").write_bytes(b" " * (FILE_BYTES_MAX + 1))
    with pytest.raises(ChainError, match="more than"):
        read_chain(tmp_path / "chain.json")


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"unfinalized_max": 33}, "unfinalized_max"),
        ({"block_interval_ms": 2_000}, "idle_interval_ms"),
    ],
)
def test_parameters_with_which_no_chain_goes_on(change: dict[str, int], name: str) -> None:
    """What a genesis may not say is refused here too, with the parameter and the reason."""
    changed = example()
    changed["parameters"] |= change
    with pytest.raises(ChainError, match=rf"parameters\.{name}: .*{next(iter(change.values()))}"):
        parse_chain(json.dumps(changed).encode(), "here")


@pytest.mark.parametrize("epoch", [0, 1])
def test_a_validator_whose_key_is_none(epoch: int) -> None:
    """P1: a key out of the prime-order subgroup makes the file none, and is named."""
    changed = example()
    changed["validator_sets"][epoch][0] = {"public_key": MIXED_KEY.hex(), "power": 1}
    changed["validator_sets"][epoch].sort(key=lambda one: one["public_key"])
    with pytest.raises(ChainError, match=MIXED_KEY.hex()):
        parse_chain(json.dumps(changed).encode(), "here")
