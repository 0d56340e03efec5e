"""Payments over a line that loses answers: what is said is right, and nothing is paid twice."""

import http.client
import itertools
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from engine.cli.known_chains import FILE_NAME
from engine.cli.main import main
from engine.client import Client
from tests.system.test_wallet import Dev


class Line(ThreadingHTTPServer):
    """Hands questions on to a node; loses the answers to those that `is_lost` names."""

    daemon_threads = True

    def __init__(self, node: str, payer: str) -> None:
        """Stand before a node, at a port of its own; nothing is lost yet. payer: an address."""
        super().__init__(("127.0.0.1", 0), _Handler)
        self.node = node.removeprefix("http://")
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.lose_posts = 0
        """answers to so many transactions are lost"""
        self.is_cut = False
        """after a lost one nothing is answered any more"""
        self.is_forgetful = False
        """after a lost one the node is busy and knows nothing of it: it started anew"""
        self.lost: list[str] = []
        self.lies: dict[str, Any] = {}
        """instead of what the node says of its status"""
        self.last_hash = ""
        """of the last transaction that the node took"""
        self._payer = payer

    def payments(self) -> int:
        """Return how often the payer has paid."""
        with Client(f"http://{self.node}") as client:
            return int(client.account(self._payer, "head").nonce)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Line

    def log_message(self, *_: Any) -> None:
        """Be quiet."""

    def _relay(self) -> None:
        line = self.server
        body = self.rfile.read(int(self.headers.get("content-length", "0")))
        if line.is_cut and line.lost:
            self.close_connection = True
            return
        if line.is_forgetful and line.lost and "/v1/transactions" in self.path:
            is_sent = self.command == "POST"
            code = "query.busy" if is_sent else "transaction.unknown"
            data = json.dumps({"code": code, "what": "nothing", "what_to_do": "nothing"}).encode()
            self._answer(503 if is_sent else 404, data)
            return
        kind = self.headers.get("content-type")
        connection = http.client.HTTPConnection(line.node, timeout=30)
        connection.request(self.command, self.path, body, {"content-type": kind} if kind else {})
        answer = connection.getresponse()
        data = answer.read()
        connection.close()
        if self.command == "POST" and answer.status == http.client.ACCEPTED:
            line.last_hash = json.loads(data)["hash"]
            if len(line.lost) < line.lose_posts:
                self._lose()
                return
        if self.path == "/v1/status":
            data = json.dumps({**json.loads(data), **line.lies}).encode()
        self._answer(answer.status, data)

    def _answer(self, status: int, data: bytes) -> None:
        self.send_response(status)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _lose(self) -> None:
        """Hang up without an answer, when a block has the transaction if it is asked for again."""
        line = self.server
        line.lost.append(self.path)
        if not line.is_cut:
            with Client(f"http://{line.node}") as client:
                client.wait(line.last_hash)
        self.close_connection = True

    do_GET = do_POST = _relay  # noqa: N815  # the base class calls these


@pytest.fixture
def line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Line]:
    """Point a wallet at a chain behind a line."""
    dev = Dev(tmp_path, "--on-demand")
    made = Line(dev.url, dev.screen["accounts"][0]["address"])
    thread = threading.Thread(target=made.serve_forever)
    thread.start()
    monkeypatch.setenv("TOS_URL", made.url)
    monkeypatch.setenv("TOS_KEYS", str(tmp_path / "keys"))
    yield made
    made.shutdown()
    thread.join()
    made.server_close()
    dev.stop()


SEND = ("send", "--from", "dev0", "--to", "dev1", "--amount", "1")


def test_an_answer_that_is_lost_once_is_no_refusal(
    line: Line, capsys: pytest.CaptureFixture[str]
) -> None:
    """A block has the record already when the wallet asks what became of it: sent, paid once."""
    line.lose_posts = 1
    code = main(SEND)
    said = capsys.readouterr()
    assert (code, line.lost) == (0, ["/v1/transactions"]), said.err
    assert "sent " in said.out
    assert line.payments() == 1


def test_who_is_not_told_can_ask_and_pay_once(
    line: Line, capsys: pytest.CaptureFixture[str]
) -> None:
    """A line that breaks is no "not sent": exit code 1, and what to do does not pay twice."""
    line.lose_posts, line.is_cut = 1, True
    assert main(SEND) == 1
    said = capsys.readouterr().err
    assert "may be sent or not" in said
    assert f"python -m engine transaction {line.last_hash}" in said
    assert "--nonce 0:" in said
    line.is_cut = False
    with Client(line.url) as client:
        client.wait(line.last_hash)
    assert main((*SEND, "--nonce", "0")) == 2
    assert "code: transaction.nonce_used" in capsys.readouterr().err
    assert line.payments() == 1


def test_a_node_that_forgot_says_nothing_about_what_it_took(
    line: Line, capsys: pytest.CaptureFixture[str]
) -> None:
    """It took the record and started anew: that it is busy and knows nothing is no refusal."""
    line.lose_posts, line.is_forgetful = 1, True
    assert main(SEND) == 1
    assert "may be sent or not" in capsys.readouterr().err
    assert line.payments() == 1


def test_a_refusal_is_one(line: Line, capsys: pytest.CaptureFixture[str]) -> None:
    """What a node refuses was not sent: exit code 2."""
    assert main((*SEND, "--fee", "0")) == 2
    assert "code: transaction.fee_below_minimum" in capsys.readouterr().err
    assert line.payments() == 0


def test_whatever_is_typed_is_asked_for(line: Line, capsys: pytest.CaptureFixture[str]) -> None:
    """A name in any letters, with spaces or slashes, is one that the node does not know."""
    names = ("\u00fc", "a b\r\nx: y", "../status", "\udcff", "1?x=1")
    for word, name in itertools.product(("transaction", "block"), names):
        assert main((word, name)) == 2
        said = capsys.readouterr().err
        assert "code: query.hash" in said or "code: http.404" in said, (name, said)


NONSENSE: tuple[tuple[str, Any], ...] = (
    *(("decimals", 19), ("decimals", -1), ("decimals", 10**9), ("address_prefix", "T os")),
    *(("symbol", "\x1b[2J"), ("fee_minimum", "1e9"), ("fee_minimum", "-1"), ("chain_id", 0)),
    *(("genesis_hash", "00"), ("fee_minimum", "9" * 5_000)),
)


def test_nonsense_about_a_chain_is_no_answer(
    line: Line, capsys: pytest.CaptureFixture[str]
) -> None:
    """What no genesis can have is refused before anything is signed."""
    for name, lie in NONSENSE:
        line.lies = {name: lie}
        assert main(SEND) == 2, (name, lie)
        assert "code: client.answer" in capsys.readouterr().err, (name, lie)
    assert line.payments() == 0


def test_a_chain_does_not_change_with_the_node_that_is_asked(
    line: Line, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Decimals and least fee are those of the first payment, whatever another node says later."""
    assert main((*SEND, "--wait", "included")) == 0
    known = (tmp_path / "keys" / FILE_NAME).read_bytes()
    for name, lie in (("decimals", 18), ("fee_minimum", "5"), ("symbol", "OTHER")):
        line.lies = {name: lie}
        assert main(SEND) == 2
        said = capsys.readouterr().err
        assert "code: wallet.chain_differs" in said
        assert f"{name} {lie}, not " in said
    line.lies = {"genesis_hash": "ab" * 32, "decimals": 18}
    assert main(SEND) == 2  # a signature of another chain
    line.lies = {}
    assert (
        json.loads((tmp_path / "keys" / FILE_NAME).read_bytes())["chains"][:1]
        == json.loads(known)["chains"]
    )
    assert main((*SEND, "--wait", "included")) == 0
    (tmp_path / "keys" / FILE_NAME).write_bytes(b"{")
    assert main(SEND) == 2
    assert "code: wallet.chains" in capsys.readouterr().err
    assert line.payments() == 2


def test_a_large_fee_is_paid_only_when_it_is_typed(
    line: Line, capsys: pytest.CaptureFixture[str]
) -> None:
    """A node does not choose a fee that is a large part of the amount: a person does."""
    line.lies = {"fee_minimum": str(10**8 + 1)}
    assert main(SEND) == 2
    said = capsys.readouterr().err
    assert "code: amount.fee" in said
    assert "--fee 0.100000001" in said
    assert line.payments() == 0
    assert main((*SEND, "--fee", "0.100000001", "--wait", "included")) == 0
    assert line.payments() == 1
