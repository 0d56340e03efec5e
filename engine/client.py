"""A typed client of a node's HTTP interface: one connection, answers as values.

The command line, the load generator and the examples of the README use this one. It is not for
several threads at once; each opens its own. Errors of the node come as `NodeError` with the node's
code. Read `queries/answers.py` for the values.
"""

import http.client
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Self, TypeVar
from urllib.parse import quote, urlencode

import msgspec

from engine.address import encode_address
from engine.constants import TRANSACTION_BYTES, TRANSACTION_CONTEXT, derive_key
from engine.queries import answers
from engine.signing import Transfer
from engine.types import At
from engine.writer import seconds
from runtime.errors import ExplainedError
from runtime.keypair import KeyPair
from runtime.urls import NodeUrl

T = TypeVar("T")
URL_DEFAULT = "http://127.0.0.1:8553"
TIMEOUT_S = 30
ANSWER_BYTES_MAX = 2**26
VALID_HEIGHTS = 1_000
"""How long a transfer stays valid unless its sender says otherwise, in blocks."""
POLL_MS = 100
SENTENCE_MAX = 1_000
"""Characters that a person is shown of what a node says."""
RECORDS = "application/octet-stream"
_U64_MAX = 2**64 - 1


class NodeError(ExplainedError):
    """A node has no answer, or cannot be reached. Codes are the node's, or begin with `client.`"""


class Client:
    """Asks one node."""

    def __init__(
        self,
        url: str = URL_DEFAULT,
        *,
        timeout_s: int = TIMEOUT_S,
        clock_ms: Callable[[], int] = lambda: time.monotonic_ns() // 1_000_000,
    ) -> None:
        """Prepare; the connection is made by the first question. Raises NodeError."""
        try:
            place = NodeUrl.of(url)
        except ValueError as error:
            raise NodeError(
                "client.url",
                what=f"{url!r} is no address of a node",
                where="--url",
                why=str(error),
                what_to_do=f"write for example {URL_DEFAULT}",
            ) from error
        self.url = url
        self._connection = http.client.HTTPConnection(place.host, place.port, timeout=timeout_s)
        self._clock_ms = clock_ms
        self._status: answers.Status | None = None

    def __enter__(self) -> Self:
        """Return the client."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connection."""
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    # Questions

    def status(self) -> answers.Status:
        """Return the chain and where the node stands."""
        self._status = self._get("/v1/status", answers.Status)
        return self._status

    def account(
        self, address: str, at: At = "finalized", *, is_proven: bool = False
    ) -> answers.Account:
        """Return an account at a followed block."""
        asked: dict[str, str] = {} if at == "finalized" else {"at": at}
        if is_proven:
            asked["proof"] = "1"
        return self._get(f"/v1/accounts/{_part(address)}", answers.Account, asked)

    def history(self, address: str, before: str | None = None, limit: int = 20) -> answers.History:
        """Return a page of final transactions of an account, newest first."""
        asked = {"limit": str(limit)} | ({} if before is None else {"before": before})
        return self._get(f"/v1/accounts/{_part(address)}/transactions", answers.History, asked)

    def transaction(
        self, transaction_hash: str, *, is_proven: bool = False
    ) -> answers.TransactionAnswer:
        """Return where a transaction is."""
        asked = {"proof": "1"} if is_proven else {}
        path = f"/v1/transactions/{_part(transaction_hash)}"
        return self._get(path, answers.TransactionAnswer, asked)

    def receipt(self, transaction_hash: str) -> answers.Receipt:
        """Return what a transaction came to."""
        return self._get(f"/v1/receipts/{_part(transaction_hash)}", answers.Receipt)

    def block(self, name: str) -> answers.Block:
        """Return a block by height, hash, or the word finalized, safe or head."""
        return self._get(f"/v1/blocks/{_part(name)}", answers.Block)

    def events(
        self, accounts: tuple[str, ...] = (), *, last_event_id: str | None = None
    ) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
        """Yield (id, kind, values) of events as they come, on a connection of their own."""
        asked = {"accounts": ",".join(accounts)} if accounts else {}
        if last_event_id is not None:
            asked["last_event_id"] = last_event_id
        path = f"/v1/events?{urlencode(asked)}" if asked else "/v1/events"
        connection = http.client.HTTPConnection(
            self._connection.host, self._connection.port, timeout=TIMEOUT_S
        )
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            if answer.status != http.client.OK:
                raise _refused(answer.read(ANSWER_BYTES_MAX), answer.status, self.url)
            yield from _read_events(answer)
        except (OSError, http.client.HTTPException) as error:
            raise self._unreachable(error) from error
        except (msgspec.MsgspecError, UnicodeDecodeError, KeyError) as error:
            raise self._no_answer(str(error)) from error
        finally:
            connection.close()

    # Transfers

    def transfer(
        self,
        pair: KeyPair,
        recipient: bytes,
        amount: int,
        *,
        fee: int | None = None,
        nonce: int | None = None,
        valid_until: int | None = None,
    ) -> bytes:
        """Return a signed record; what is not given is asked from the node.

        Raises NodeError, also for numbers that no record can hold.
        """
        status = self._status or self.status()
        if nonce is None or valid_until is None:
            account = self.account(encode_address(pair.public_key, status.address_prefix), "head")
            nonce = int(account.next_nonce or account.nonce) if nonce is None else nonce
            if valid_until is None:
                valid_until = account.block.height + VALID_HEIGHTS
        fee = int(status.fee_minimum) if fee is None else fee
        if max(nonce, valid_until, fee) > _U64_MAX:
            raise self._no_answer("a nonce, a height or a fee is above 2^64 - 1")
        transfer = Transfer(
            chain_id=status.chain_id,
            nonce=nonce,
            valid_until=valid_until,
            amount=amount,
            fee=fee,
            recipient=recipient,
        )
        domain = derive_key(TRANSACTION_CONTEXT, bytes.fromhex(status.genesis_hash))
        return transfer.signed_by(pair, domain)

    def send(self, record: bytes) -> answers.Accepted:
        """Hand one signed record over. Raises NodeError with what is against it."""
        assert len(record) == TRANSACTION_BYTES, len(record)
        prefix = (self._status or self.status()).address_prefix
        names = ("nonce", "valid_until", "amount", "fee")
        numbers = [int.from_bytes(record[i : i + 8], "little") for i in (8, 16, 24, 32)]
        fields = {name: str(number) for name, number in zip(names, numbers, strict=True)}
        body = {
            **fields,
            "memo": record[48:64].hex(),
            "sender": encode_address(record[64:96], prefix),
            "recipient": encode_address(record[96:128], prefix),
            "signature": record[128:].hex(),
        }
        data = self._ask("POST", "/v1/transactions", msgspec.json.encode(body), "application/json")
        return self._decode(data, answers.Accepted)

    def send_batch(self, records: bytes | memoryview) -> bytes:
        """Hand signed records over; return a `PoolReason` for each."""
        return self._ask("POST", "/v1/transactions/batch", bytes(records), RECORDS)

    def wait(
        self, transaction_hash: str, state: str = "finalized", timeout_ms: int = 60_000
    ) -> answers.TransactionAnswer:
        """Return a transaction when it is `included` or `finalized`. Raises NodeError."""
        wanted = ("finalized",) if state == "finalized" else ("included", "finalized")
        end_ms = self._clock_ms() + timeout_ms
        while True:
            found = self.transaction(transaction_hash)
            if found.state in wanted:
                return found
            if found.state not in ("pending", "included") or self._clock_ms() >= end_ms:
                raise NodeError(
                    "client.not_final",
                    what=f"the transaction is {found.state}, not {state}",
                    where=transaction_hash,
                    why=found.reason or f"{timeout_ms} ms have passed",
                    what_to_do=f"ask again: python -m engine transaction {transaction_hash}",
                )
            time.sleep(seconds(POLL_MS))

    # Below

    def _get(self, path: str, kind: type[T], asked: Mapping[str, str] | None = None) -> T:
        query = f"?{urlencode(asked)}" if asked else ""
        return self._decode(self._ask("GET", path + query), kind)

    def _decode(self, data: bytes, kind: type[T]) -> T:
        try:
            return msgspec.json.decode(data, type=kind)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise self._no_answer(str(error)) from error

    def _no_answer(self, why: str) -> NodeError:
        return NodeError(
            "client.answer",
            what="the answer is not that of a node",
            where=self.url,
            why=why,
            what_to_do="compare the address; the node may have another version",
        )

    def _ask(self, method: str, path: str, body: bytes | None = None, kind: str = "") -> bytes:
        """Return the body of a good answer; a connection that was closed is made again once."""
        headers = {"content-type": kind} if kind else {}
        is_fresh = self._connection.sock is None
        try:
            self._connection.request(method, path, body, headers)
            answer = self._connection.getresponse()
            data = answer.read(ANSWER_BYTES_MAX)
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            # A question may be asked twice; a transaction is the same one when it comes twice.
            if is_fresh or isinstance(error, TimeoutError):
                raise self._unreachable(error) from error
            return self._ask(method, path, body, kind)
        if answer.status not in (http.client.OK, http.client.ACCEPTED):
            raise _refused(data, answer.status, self.url)
        return data

    def _unreachable(self, error: Exception) -> NodeError:
        return NodeError(
            "client.unreachable",
            what="the node does not answer",
            where=self.url,
            why=str(error) or type(error).__name__,
            what_to_do="start one (python -m engine dev), or name another with --url",
        )


def _part(text: str) -> str:
    """Return any text, as a person typed it, as one part of a path: the node says what it is."""
    return quote(text, safe="", errors="surrogateescape")


def _refused(data: bytes, status: int, url: str) -> NodeError:
    """Return the error that a node answered with."""
    try:
        found = msgspec.json.decode(data, type=answers.Error)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        found = answers.Error(
            code=f"http.{status}", what=f"the answer has status {status}", what_to_do="ask again"
        )
    code, what, what_to_do = map(_printable, (found.code, found.what, found.what_to_do))
    return NodeError(code, what=what, where=url, why="the node said so", what_to_do=what_to_do)


def _printable(text: str) -> str:
    """Return a sentence of a node without what would command a terminal, and not too long."""
    return "".join(c if c.isprintable() else "?" for c in text[:SENTENCE_MAX])


def _read_events(
    answer: http.client.HTTPResponse,
) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Yield events from lines, until the node ends them."""
    fields: dict[str, str] = {}
    while line := answer.readline(2**16):
        text = line.decode("utf-8").rstrip("\n")
        if text:
            name, _, value = text.partition(": ")
            fields[name] = value
        elif "data" in fields:
            yield fields["id"], fields["event"], msgspec.json.decode(fields["data"])
            fields = {}
        else:
            fields = {}
