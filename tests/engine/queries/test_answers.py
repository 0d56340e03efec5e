"""The paths of the HTTP interface on real blocks: every answer is what the oracle says."""

import io
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import httpx
import msgspec
import numpy as np
import pyarrow as pa
import pytest

from engine import recent_blocks
from engine.client import Client, NodeError
from engine.columns import COLUMN_TABLE, from_records
from engine.pool_rules import PoolReason
from engine.queries import answers
from engine.queries.submission import ARROW, ONE_BYTES_MAX, RECORDS, arrow_schema
from spec import oracle, verify
from tests.engine.homes import FEE_RECIPIENT, key_pair
from tests.engine.queries.conftest import Node, transactions_of

RULES = verify.load()
Address = Callable[[bytes], str]


def fields_of(transaction: Any, address: Address) -> dict[str, str]:
    """Return a transaction as it is sent."""
    numbers = {n: str(getattr(transaction, n)) for n in ("amount", "fee", "nonce", "valid_until")}
    return {
        **numbers,
        "sender": address(transaction.sender),
        "recipient": address(transaction.recipient),
        "memo": transaction.memo.hex(),
        "signature": transaction.signature.hex(),
    }


def test_status_says_where_the_node_stands(node: Node) -> None:
    """Genesis at first, then head, safe and finalized as they move."""
    genesis = node.home.maker.hash.hex()
    before = node.get("/v1/status")
    assert before["finalized"] == {"height": 0, "hash": genesis}
    assert before["genesis_hash"] == genesis
    assert (before["chain_id"], before["address_prefix"]) == (7, "tos")
    first, second = node.add(), node.add(finalized=1)
    after = node.get("/v1/status")
    assert after["head"] == {"height": 2, "hash": second.hash.hex()}
    assert after["finalized"] == {"height": 1, "hash": first.hash.hex()}


def test_accounts_at_every_followed_block(node: Node, address: Address) -> None:
    """Balance, spendable and nonce at head and finalized are the oracle's; unknown ones are 0."""
    blocks = [node.add(6), node.add(6, finalized=1)]
    for at, block in (("finalized", blocks[0]), ("head", blocks[1])):
        for slot, account in enumerate(node.home.maker.accounts(block)):
            found = node.get(f"/v1/accounts/{address(account.key)}", at=at)
            assert found["block"] == {"height": block.height, "hash": block.hash.hex()}
            assert (found["slot"], found["exists"]) == (slot, True)
            assert (found["balance"], found["nonce"]) == (str(account.balance), str(account.nonce))
            assert found["spendable"] == str(account.balance - min(5, account.balance))
    nobody = node.get(f"/v1/accounts/0x{'ab' * 32}")
    assert (nobody["exists"], nobody["balance"], nobody["slot"]) == (False, "0", None)
    plain = node.get(f"/v1/accounts/{address(FEE_RECIPIENT)}")
    assert plain == node.get(f"/v1/accounts/{address(FEE_RECIPIENT)}", at="finalized")


def test_proofs_of_answers_verify(node: Node, address: Address) -> None:
    """What is asked with proof=1 convinces the standalone verifier, at every followed block."""
    blocks = [node.add(6), node.add(6, finalized=1)]
    for at, block in (("finalized", blocks[0]), ("head", blocks[1])):
        found = node.get(f"/v1/accounts/{address(key_pair(3)[0])}", at=at, proof=1)
        proven = RULES.verify_proof(found["proof"])
        assert (proven.block_hash, proven.key) == (block.hash, key_pair(3)[0])
        assert str(proven.balance) == found["balance"]
        for transaction in transactions_of(block):
            name = oracle.transaction_hash(transaction)
            answer = node.get(f"/v1/transactions/{name.hex()}", proof=1)
            proven = RULES.verify_proof(answer["proof"])
            assert (proven.block_hash, proven.transaction_hash) == (block.hash, name)
    assert node.get(f"/v1/accounts/0x{'ab' * 32}", 404, proof=1)["code"] == "proof.no_account"


def test_what_the_disk_has_spoiled_is_not_answered(node: Node) -> None:
    """A record that is not the one which was asked for is no answer, nor are spoiled receipts."""
    block = node.add(6)
    name = oracle.transaction_hash(transactions_of(block)[2]).hex()
    assert node.get(f"/v1/transactions/{name}")["state"] == "finalized"
    path = next((node.home.folder / "blocks").iterdir())
    good = path.read_bytes()
    place = good.index(transactions_of(block)[2].signature)
    path.write_bytes(good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])
    for proof in (0, 1):
        assert node.get(f"/v1/transactions/{name}", 503, proof=proof)["code"] == "query.damaged"
    path.write_bytes(good[: len(good) - 1] + bytes([good[-1] ^ 1]))
    assert node.get(f"/v1/transactions/{name}")["state"] == "finalized"
    assert node.get(f"/v1/transactions/{name}", 503, proof=1)["code"] == "query.damaged"


def test_what_the_index_alone_finds_is_spoiled_not_unknown(
    node: Node, address: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither its hash nor its account's history says that it never was, nor shows other bytes."""
    monkeypatch.setattr(recent_blocks, "BLOCKS_MAX", 1)
    block = node.add(6)
    node.add(1)
    node.home.service.wait_indexed()
    spoiled = transactions_of(block)[2]
    name = oracle.transaction_hash(spoiled)
    account = f"/v1/accounts/{address(spoiled.sender)}/transactions"
    assert node.get(f"/v1/transactions/{name.hex()}")["state"] == "finalized"
    assert name.hex() in [item["hash"] for item in node.get(account)["transactions"]]
    near = name[:8] + bytes(24)
    assert node.get(f"/v1/transactions/{near.hex()}", 404)["code"] == "transaction.unknown"
    path = next((node.home.folder / "blocks").iterdir())
    good = path.read_bytes()
    signature = good.index(spoiled.signature)
    count = good.index(block.payload) + 16
    for place in (signature, count):
        bad = bytearray(good)
        bad[place] = 0 if place == count else bad[place] ^ 1
        path.write_bytes(bad)
        assert node.get(f"/v1/transactions/{name.hex()}", 503)["code"] == "query.damaged"
        assert node.get(account, 503)["code"] == "query.damaged"
    path.write_bytes(good)
    assert node.get(f"/v1/transactions/{name.hex()}")["state"] == "finalized"


def changed_texts(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Yield a value once for each text in it, with a command for a terminal in that place."""
    if isinstance(value, str):
        yield path, value + "\x1b[2J"
    items = value.items() if isinstance(value, dict) else ()
    for name, item in [*items, *(enumerate(value) if isinstance(value, list) else ())]:
        for where, other in changed_texts(item, (*path, name)):
            copy = value.copy()
            copy[name] = other
            yield where, copy


def test_no_text_that_a_wallet_shows_commands_its_terminal(node: Node, address: Address) -> None:
    """Whatever text of an answer a lying node changes so, it is no answer."""
    name = oracle.transaction_hash(transactions_of(node.add(6))[2]).hex()
    node.home.service.wait_indexed()
    account = address(key_pair(3)[0])
    asked: list[tuple[str, type[answers.Answer]]] = [
        ("/v1/status", answers.Status),
        (f"/v1/accounts/{account}", answers.Account),
        (f"/v1/accounts/{account}/transactions", answers.History),
        (f"/v1/transactions/{name}", answers.TransactionAnswer),
        (f"/v1/receipts/{name}", answers.Receipt),
        ("/v1/blocks/1", answers.Block),
    ]
    for path, kind in asked:
        good = node.get(path)
        msgspec.convert(good, kind)
        for where, bad in changed_texts(good):
            if where[-1] in ("software", "degraded"):  # no command prints these
                continue
            with pytest.raises(msgspec.ValidationError):
                msgspec.convert(bad, kind)


class Liar(BaseHTTPRequestHandler):
    """Answers everything with an error that commands a terminal, and is long."""

    def do_GET(self) -> None:
        """Answer."""
        error = dict.fromkeys(("code", "what", "what_to_do"), "\x1b[2J\r\n\x9b" + 5_000 * "\u00e9")
        body = json.dumps(error).encode()
        self.send_response(404)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Be quiet."""


def test_an_error_of_a_lying_node_commands_no_terminal() -> None:
    """What it says is shown without that, and not all of it."""
    with HTTPServer(("127.0.0.1", 0), Liar) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            url = f"http://127.0.0.1:{server.server_address[1]}"
            with Client(url) as client, pytest.raises(NodeError) as refused:
                client.status()
        finally:
            server.shutdown()
            thread.join()
    assert refused.value.what.startswith("?[2J???\u00e9")
    assert all(line.isprintable() for line in str(refused.value).split("\n"))
    assert len(str(refused.value)) < 4_000


def test_a_transaction_on_its_way(node: Node, address: Address) -> None:
    """Unknown, pending, included, finalized; receipt and fields are right."""
    first = node.home.maker.transaction(0, 0, key_pair(1)[0], amount=77)
    name = oracle.transaction_hash(first).hex()
    assert node.get(f"/v1/transactions/{name}", 404)["code"] == "transaction.unknown"
    sent = node.http.post("/v1/transactions", json=fields_of(first, address))
    assert (sent.status_code, sent.json()) == (202, {"hash": name, "state": "pending"})
    assert node.get(f"/v1/transactions/{name}")["state"] == "pending"
    assert node.get("/v1/status")["pending_count"] == 1
    assert node.get(f"/v1/receipts/{name}", 404)["code"] == "transaction.pending"
    block = node.add(transactions=[first], finalized=1)
    found = node.get(f"/v1/transactions/{name}")
    assert (found["state"], found["receipt"]["is_final"]) == ("included", False)
    node.add()
    found = node.get(f"/v1/transactions/{name}")
    assert found["state"] == "finalized"
    assert found["transaction"] == fields_of(first, address)
    node.home.service.wait_indexed()
    receipt = node.get(f"/v1/receipts/{name}")
    assert receipt == found["receipt"]
    assert receipt["block"] == {"height": 1, "hash": block.hash.hex()}
    assert (receipt["status"], receipt["fee_charged"]) == ("SUCCESS", "1")


def test_what_is_final_is_never_unknown_while_the_index_is_behind(
    node: Node, address: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A final transaction is found, or the question is put off: nobody is told to send it again."""
    monkeypatch.setattr(recent_blocks, "BLOCKS_MAX", 1)
    first = node.home.maker.transaction(0, 0, key_pair(1)[0])
    name = oracle.transaction_hash(first).hex()
    path = f"/v1/accounts/{address(key_pair(1)[0])}/transactions"
    with node.home.service._indexer.mutex:
        node.add(transactions=[first])
        node.add()
        node.add()
        late = node.get(f"/v1/transactions/{name}", 503)
        assert (late["code"], "1 to 3" in late["what"]) == ("query.busy", True)
        assert node.get(f"/v1/receipts/{name}", 503)["code"] == "query.busy"
        assert node.get(f"/v1/transactions/{'ab' * 32}", 503)["code"] == "query.busy"
        again = node.http.post("/v1/transactions", json=fields_of(first, address))
        assert again.json()["code"] == "transaction.nonce_used"
        assert node.get(f"/v1/transactions/{name}", 503)["code"] == "query.busy"
        assert node.get(path, 503)["code"] == "query.busy"
        assert node.get(path, before=1 << 32)["transactions"] == []
    node.home.service.wait_indexed()
    assert node.get(f"/v1/transactions/{name}")["state"] == "finalized"
    assert node.get(f"/v1/transactions/{'ab' * 32}", 404)["code"] == "transaction.unknown"
    assert node.get(path)["transactions"][-1]["hash"] == name


def test_the_newest_blocks_are_known_before_they_are_indexed(node: Node) -> None:
    """Blocks that wait for the index keep no answer waiting: their transactions are remembered."""
    with node.home.service._indexer.mutex:
        blocks = [node.add() for _ in range(3)]
        for block in blocks:
            for transaction in transactions_of(block):
                name = oracle.transaction_hash(transaction).hex()
                assert node.get(f"/v1/transactions/{name}")["state"] == "finalized"
        assert node.get(f"/v1/transactions/{'ab' * 32}", 404)["code"] == "transaction.unknown"


def test_history_is_paged_newest_first(node: Node, address: Address) -> None:
    """Pages of any length give every final transaction of an account once, newest first."""
    for _ in range(5):
        node.add(6)
    node.home.service.wait_indexed()
    key = key_pair(2)[0]
    expected = [
        oracle.transaction_hash(transaction).hex()
        for block in reversed(node.blocks)
        for transaction in reversed(transactions_of(block))
        if key in (transaction.sender, transaction.recipient)
    ]
    for limit in (1, 3, 100):
        found: list[str] = []
        before: dict[str, Any] = {}
        while True:
            page = node.get(f"/v1/accounts/{address(key)}/transactions", limit=limit, **before)
            found += [item["hash"] for item in page["transactions"]]
            if page["before"] is None:
                break
            before = {"before": page["before"]}
        assert found == expected


def test_blocks_by_every_name(node: Node, address: Address) -> None:
    """Height, hash and word lead to the same block; genesis and unknown ones are explained."""
    block = node.add()
    head = node.add(finalized=1)
    found = [node.get(f"/v1/blocks/{name}") for name in (1, block.hash.hex(), "finalized")]
    assert found[0] == found[1] == found[2]
    assert found[0]["is_final"]
    assert found[0]["state_hash"] == block.fields.state_hash.hex()
    assert found[0]["fee_recipient"] == address(FEE_RECIPIENT)
    assert not node.get("/v1/blocks/head")["is_final"]
    assert node.get("/v1/blocks/head")["parent_hash"] == block.hash.hex()
    assert node.get(f"/v1/blocks/{head.hash.hex()}")["height"] == 2
    for name in ("0", "3", "99999999999999999999", "ab" * 32):
        assert node.get(f"/v1/blocks/{name}", 404)["code"] == "block.unknown"
    assert node.get("/v1/blocks/none", 400)["code"] == "query.hash"


def test_batches_of_records_and_of_columns(node: Node) -> None:
    """A status per record in order, as bytes or as an Arrow column."""
    made = [node.home.maker.transaction(n, 0, b"\x01" * 32) for n in range(4)]
    records = [bytearray(oracle.encode_transaction(item)) for item in made]
    records[1][150] ^= 1
    records[2][4] ^= 1
    body = b"".join(records)
    answer = node.http.post(
        "/v1/transactions/batch", content=body, headers={"content-type": RECORDS}
    )
    assert answer.status_code == 200
    wrong = [PoolReason.SIGNATURE, PoolReason.WRONG_CHAIN]
    assert list(answer.content) == [PoolReason.ACCEPTED, *wrong, PoolReason.ACCEPTED]
    rows = np.frombuffer(body, np.uint8).reshape(-1, 192)
    columns = from_records(rows)
    arrays = []
    for column, field in zip(COLUMN_TABLE, arrow_schema(), strict=True):
        values = getattr(columns, column.name)
        as_list = [v.tobytes() for v in values] if values.ndim == 2 else values.tolist()
        arrays.append(pa.array(as_list, field.type))
    batch = pa.record_batch(arrays, schema=arrow_schema())
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch.slice(0, 1))
        writer.write_batch(batch.slice(1))
    answer = node.http.post(
        "/v1/transactions/batch", content=sink.getvalue(), headers={"content-type": ARROW}
    )
    with pa.ipc.open_stream(answer.content) as reader:
        statuses = reader.read_all().column("status").to_pylist()
    assert statuses == [PoolReason.DUPLICATE, *wrong, PoolReason.DUPLICATE]


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"signature": "00" * 64}, 409, "transaction.signature"),
        ({"nonce": "1"}, 409, "transaction.signature"),
        ({"fee": "0"}, 409, "transaction.fee_below_minimum"),
        ({"valid_until": "0"}, 409, "transaction.expired"),
        ({"amount": "1000000000"}, 409, "transaction.signature"),
        ({"amount": "18446744073709551616"}, 409, "transaction.range"),
        ({"sender": "0x" + "ab" * 32}, 409, "transaction.signature"),
        ({"sender": "tos1x"}, 404, "address.length"),
        ({"amount": 5}, 400, "transaction.form"),
        ({"amount": "05"}, 400, "transaction.form"),
        ({"more": "5"}, 400, "transaction.form"),
    ],
)
def test_a_transaction_that_cannot_be_taken_is_explained(
    node: Node, address: Address, change: dict[str, Any], status: int, code: str
) -> None:
    """The code says what is against it, and there is a sentence and what to do."""
    good = fields_of(node.home.maker.transaction(0, 0, key_pair(1)[0]), address)
    answer = node.http.post("/v1/transactions", json={**good, **change})
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.json()["what"]
    assert answer.json()["what_to_do"]


def test_what_the_state_is_against_is_explained(node: Node, address: Address) -> None:
    """Signed rightly, and refused by the pool: nonce, means, sender, recipient, replacement."""
    maker, one = node.home.maker, key_pair(1)[0]
    node.add(transactions=[maker.transaction(0, 0, one)])
    refusals = [
        (maker.transaction(0, 0, one), "transaction.nonce_used"),
        (maker.transaction(1, 9_999, one), "transaction.nonce_too_far"),
        (maker.transaction(1, 0, one, amount=2**40), "transaction.insufficient_balance"),
        (maker.transaction(60, 0, one), "transaction.unknown_sender"),
        (maker.transaction(1, 0, b"\xcd" * 32, amount=1), "transaction.recipient_below_minimum"),
    ]
    for transaction, code in refusals:
        answer = node.http.post("/v1/transactions", json=fields_of(transaction, address))
        assert (answer.status_code, answer.json()["code"]) == (409, code)
    waiting = maker.transaction(2, 0, one)
    assert node.http.post("/v1/transactions", json=fields_of(waiting, address)).is_success
    other = fields_of(maker.transaction(2, 0, one, amount=11), address)
    answer = node.http.post("/v1/transactions", json=other)
    assert answer.json()["code"] == "transaction.fee_bump_too_low"
    account = node.get(f"/v1/accounts/{address(key_pair(2)[0])}", at="head")
    assert (account["nonce"], account["next_nonce"]) == ("0", "1")
    name = oracle.transaction_hash(maker.transaction(0, 0, one, amount=12)).hex()
    refused = fields_of(maker.transaction(0, 0, one, amount=12), address)
    assert node.http.post("/v1/transactions", json=refused).status_code == 409
    found = node.get(f"/v1/transactions/{name}")
    assert (found["state"], found["reason"]) == ("rejected", "NONCE_USED")


def test_bodies_are_bounded_and_typed(node: Node) -> None:
    """Too long, of another type, no whole number of records, no Arrow: each has its code."""

    def post(path: str, content: bytes, kind: str) -> tuple[int, str]:
        answer: httpx.Response = node.http.post(
            path, content=content, headers={"content-type": kind}
        )
        return answer.status_code, answer.json()["code"]

    one, many = "/v1/transactions", "/v1/transactions/batch"
    assert post(one, b" " * (ONE_BYTES_MAX + 1), "application/json") == (413, "query.body_size")
    assert post(one, b"{}", "text/plain") == (415, "query.content_type")
    assert post(one, b"[" * 9_000, "application/json") == (400, "transaction.form")
    assert post(many, b"\0" * 191, RECORDS) == (409, "batch.length")
    assert post(many, b"\0" * 192, ARROW) == (409, "batch.arrow")
    assert post(many, b"", ARROW) == (409, "batch.arrow")


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/v1/nothing", 404, "http.404"),
        ("/v1/status?x=1", 400, "query.parameter"),
        ("/v1/accounts/tos1", 404, "address.length"),
        ("/v1/accounts/0x12", 404, "address.hex"),
        (f"/v1/accounts/0x{'ab' * 32}?at=now", 400, "query.at"),
        (f"/v1/accounts/0x{'ab' * 32}?proof=2", 400, "query.flag"),
        (f"/v1/accounts/0x{'ab' * 32}?at=head&at=head", 400, "query.parameter"),
        (f"/v1/accounts/0x{'ab' * 32}/transactions?limit=0", 400, "query.number"),
        ("/v1/transactions/ab", 400, "query.hash"),
        ("/v1/events?kinds=x", 400, "events.kind"),
    ],
)
def test_questions_without_an_answer_are_explained(
    node: Node, path: str, status: int, code: str
) -> None:
    """Every error has a code, a sentence, and what to do."""
    found = node.get(path, status)
    assert found["code"] == code
    assert found["what"]
    assert found["what_to_do"]


def test_pages_for_programs(node: Node) -> None:
    """/metrics has the text that it was given; another method is refused with the right ones."""
    assert node.http.get("/metrics").text == "tos_up 1\n"
    answer = node.http.delete("/v1/status")
    assert (answer.status_code, answer.json()["code"]) == (405, "http.405")
    assert "GET" in answer.headers["allow"]
