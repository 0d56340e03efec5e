"""The published vectors: fresh, and what the engine gives on every arm."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.codec import payload_commitment
from engine.errors import Reason
from engine.header import Header
from kernels.backend import open_backend
from tests.engine.ledgers import engine_result, open_state
from tests.vectors import generate

FOLDER = Path(__file__).parent


def read(name: str) -> list[dict[str, Any]]:
    """Return the cases of one file."""
    cases: list[dict[str, Any]] = json.loads((FOLDER / f"{name}.json").read_text())
    return cases


def test_vectors_are_fresh() -> None:
    """Each file is what `python -m tests.vectors` would write now."""
    for name, cases in generate.vectors().items():
        assert read(name) == cases, f"{name}.json is stale: run python -m tests.vectors"


def test_every_reason_of_a_payload_has_a_vector() -> None:
    """One refused payload per reason of the encoding, transaction and block phases."""
    wanted = {reason.name for reason in Reason if reason >= Reason.PAYLOAD_TOO_SHORT}
    assert {case["reason"] for case in read("refused")} == wanted


@pytest.mark.parametrize(("arm", "threads"), [("serial", 1), ("cpu", 1), ("cpu", 2)])
@pytest.mark.parametrize("name", ["blocks", "refused"])
def test_the_engine_gives_the_vectors(arm: Any, threads: int, name: str) -> None:
    """Statuses, roots, hashes and reasons of each block equal the published ones."""
    backend = open_backend(arm, threads)
    for case in read(name):
        state = open_state(generate.opening(), backend)
        payload = bytes.fromhex(case["payload"])
        result, _ = engine_result(state, payload, ledger=generate.LEDGER, verify=True)
        keys = ("statuses", "transactions_root", "receipts_hash", "state_hash")
        expected = [case[key] for key in (keys if "statuses" in case else ("reason", "position"))]
        assert generate.plain(result) == expected, case["name"]
    backend.close()


def test_headers_of_the_vectors() -> None:
    """Each published block's header has its published hash and its payload's commitment."""
    for case in read("blocks"):
        header = Header.decode(bytes.fromhex(case["header"]))
        assert header.block_hash().hex() == case["block_hash"]
        assert header.encode().hex() == case["header"]
        assert header.state_hash.hex() == case["state_hash"]
        assert payload_commitment(bytes.fromhex(case["payload"])) == header.payload_commitment


def test_the_backend_judges_signatures_as_published() -> None:
    """Every edge case of a signature gets its published verdict."""
    backend = open_backend("cpu", 2)
    cases = read("signatures")
    columns = [
        np.array([list(bytes.fromhex(case[name])) for case in cases], np.uint8)
        for name in ("public_key", "signature", "message")
    ]
    assert backend.verify_signatures(*columns).tolist() == [case["valid"] for case in cases]
    backend.close()
