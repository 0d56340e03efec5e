"""The standalone verifier: real answers of a service verify, and tampered ones do not."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.codec import decode_payload
from engine.columns import to_records
from engine.queries.proof_trees import make_trees
from engine.queries.proofs import account_proof, transaction_proof
from kernels.backend import open_backend
from kernels.layout import U8
from spec import oracle, verify
from tests.engine.homes import PARAMETERS, Home
from tests.engine_api.toy import Block

RULES = verify.load()


@pytest.fixture(scope="module")
def blocks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Home, list[Block]]]:
    """Open a home with five blocks of different sizes, three of them final."""
    home = Home(tmp_path_factory.mktemp("proofs") / "home")
    made: list[Block] = []
    for salt, count in enumerate((1, 2, 5, 13, 31)):
        made.append(home.maker.block(made[-1] if made else None, salt, count))
        home.service.new_payload(made[-1].header, made[-1].payload)
    home.service.forkchoice_updated(made[4].hash, made[3].hash, made[2].hash)
    yield home, made
    home.close()


def proof_of_account(home: Home, block: Block, key: bytes, at: Any) -> dict[str, Any]:
    """Ask the service for a proof, and put the header in."""
    found = home.service.ask("a proof", lambda executor: account_proof(executor, key, at))
    assert found is not None
    assert found[0] == block.hash
    return {**found[1], "header": block.header.hex()}


@pytest.mark.parametrize(("at", "index"), [("finalized", 2), ("safe", 3), ("head", 4)])
def test_every_account_is_proven(blocks: tuple[Home, list[Block]], at: str, index: int) -> None:
    """At each followed block every account's proof verifies and says what the oracle says."""
    home, made = blocks
    for account in home.maker.accounts(made[index]):
        proven = RULES.verify_proof(proof_of_account(home, made[index], account.key, at))
        assert proven.block_hash == made[index].hash
        assert proven.height == made[index].height
        assert (proven.key, proven.balance, proven.nonce) == (
            account.key, account.balance, account.nonce,
        )  # fmt: skip


def statuses_of(home: Home, block: Block) -> U8:
    """Return the statuses of a block, from its receipts or from its execution."""
    for followed in home.service.views.standing.followed:
        if followed.node.block_hash == block.hash:
            return followed.outcome.statuses
    history = home.store.history(block.hash)
    assert history is not None
    return history.statuses


def proof_of_transaction(home: Home, block: Block, position: int) -> dict[str, Any]:
    """Return the proof of one transaction."""
    statuses = statuses_of(home, block)
    backend = open_backend("serial")
    trees = make_trees(backend, block.payload, statuses, PARAMETERS.limits)
    backend.close()
    record = to_records(decode_payload(block.payload, PARAMETERS.limits).columns)[position]
    status = int(statuses[position])
    return transaction_proof(block.header, record.tobytes(), status, position, trees)


def test_every_transaction_is_proven(blocks: tuple[Home, list[Block]]) -> None:
    """In blocks of 1 to 31 transactions the proof of each one verifies, with its status."""
    home, made = blocks
    for block in made:
        lanes = oracle.decode_payload(block.payload, oracle.Limits())
        transactions = [transaction for lane in lanes for transaction in lane]
        statuses = statuses_of(home, block).tolist()
        for position, transaction in enumerate(transactions):
            proven = RULES.verify_proof(proof_of_transaction(home, block, position))
            assert proven.block_hash == block.hash
            assert proven.transaction_hash == oracle.transaction_hash(transaction)
            assert proven.record == oracle.encode_transaction(transaction)
            assert (proven.position, proven.status) == (position, statuses[position])


def tampered(value: Any, rng: np.random.Generator) -> Any:
    """Return a value of the same type and form that is another one."""
    if isinstance(value, int):
        return value + int(rng.integers(1, 5))
    if isinstance(value, list):
        if not value or rng.random() < 0.3:
            return [*value, "00" * 32]
        place = int(rng.integers(len(value)))
        return [*value[:place], tampered(value[place], rng), *value[place + 1 :]]
    if not set(value) <= set("0123456789abcdef"):
        return value[::-1]
    place = int(rng.integers(len(value)))
    other = "0123456789"[(int(value[place], 16) + int(rng.integers(1, 10))) % 10]
    changed = value[:place] + other + value[place + 1 :]
    return changed if changed != value else value[:place] + "a" + value[place + 1 :]


@pytest.mark.parametrize("kind", ["account", "transaction"])
def test_no_field_can_be_changed(
    blocks: tuple[Home, list[Block]], kind: str, rng: np.random.Generator
) -> None:
    """A change of any field is refused, or is about another block: the hash tells."""
    home, made = blocks
    block = made[4]
    key = home.maker.accounts(block)[3].key
    proof = proof_of_account(home, block, key, "head")
    if kind == "transaction":
        proof = proof_of_transaction(home, block, 17)
    refused = 0
    for name in proof:
        for _ in range(40):
            other = {**proof, name: tampered(proof[name], rng)}
            try:
                proven = RULES.verify_proof(other)
            except RULES.NotProven:
                refused += 1
            else:
                # Another slot of the same leaf is another account, and the key says so.
                is_other = name == "slot" and proven.key != key
                assert is_other or (name == "header" and proven.block_hash != block.hash), name
    assert refused >= 40 * (len(proof) - 2)
    for name in proof:
        with pytest.raises(RULES.NotProven):
            RULES.verify_proof({key: value for key, value in proof.items() if key != name})
    with pytest.raises(RULES.NotProven):
        RULES.verify_proof({**proof, "more": 1})


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b"3", b'{"kind": []}', b"[" * 50_000])
def test_what_is_no_proof_is_refused(data: bytes) -> None:
    """Garbage of every form is NotProven, never another error."""
    with pytest.raises(RULES.NotProven):
        RULES.verify_file(data)


def test_the_program_says_what_a_file_proves(
    blocks: tuple[Home, list[Block]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An answer with a proof is accepted, a wrong block hash or file is not."""
    home, made = blocks
    key = home.maker.accounts(made[2])[0].key
    file = tmp_path / "answer.json"
    file.write_text(json.dumps({"proof": proof_of_account(home, made[2], key, "finalized")}))
    assert verify.main([str(file), "--block-hash", made[2].hash.hex()]) == 0
    assert key.hex() in capsys.readouterr().out
    assert verify.main([str(file), "--block-hash", made[1].hash.hex()]) == 1
    assert "not proven" in capsys.readouterr().err
    assert verify.main([str(tmp_path / "none.json")]) == 1
