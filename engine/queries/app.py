"""The paths of the HTTP interface: what is asked, by whom it is answered, and with which bounds.

Accounts at a block are answered on the event loop, without a thread and without the framework's
routing, because they are asked for most. What may touch the disk goes to a few threads; beyond
`WAITING_MAX` of those a question is answered with `query.busy`. Read `openapi.py` for the document
of the same paths, `reader.py` for the answers.
"""

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http import HTTPStatus
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from engine.queries import answers, submission
from engine.queries.errors import QueryError, bad_request, busy, damaged
from engine.queries.events import EventLog, EventResponse, parse_wanted
from engine.queries.openapi import document
from engine.queries.proof_trees import TooSoon
from engine.queries.reader import BEFORE_MAX, PAGE_DEFAULT, PAGE_MAX, Queries
from engine.store.errors import StoreDamaged
from engine.types import AT, At
from engine.views import Changing
from engine.writer import seconds
from engine_api.types import EngineApiError

THREADS = 4
WAITING_MAX = 64
"""Questions that wait for a thread or run on one."""
BODIES_MAX = 8
"""Bodies that are read at once: 8 x 12 MiB."""
READ_ATTEMPTS = 5_000
READ_PAUSE_MS = 1
PROOF_ATTEMPTS = 20
"""Times that a proof is asked for while others are made; 5 s at most between them."""
PROOF_PAUSE_MIN_MS = 50

JSON = "application/json"
ACCOUNTS = "/v1/accounts/"
BATCH = submission.BATCH_PATH.rpartition("/")[2]
"""A path of its own where a hash would stand."""
_ENCODER = msgspec.json.Encoder()
_JSON_HEADERS = [(b"content-type", JSON.encode())]
Metrics = Callable[[], tuple[bytes, str]]
"""Return the body and the content type of /metrics."""


def json_response(answer: Any, status: int = HTTPStatus.OK) -> Response:
    """Return a value as JSON."""
    return Response(_ENCODER.encode(answer), status, media_type=JSON)


class Api:
    """An ASGI application over the queries of one node."""

    def __init__(self, queries: Queries, events: EventLog, metrics: Metrics) -> None:
        """Answer from these."""
        self._queries = queries
        self._events = events
        self._metrics = metrics
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="query")
        self._waiting = 0
        self._bodies = 0
        self._document = _ENCODER.encode(document())
        self._decode_one = msgspec.json.Decoder(submission.NewTransaction).decode
        get, post = ["GET"], ["POST"]
        self._framework: ASGIApp = Starlette(
            routes=[
                Route("/v1/status", self._status, methods=get),
                Route("/v1/accounts/{address}", self._account, methods=get),
                Route("/v1/accounts/{address}/transactions", self._history, methods=get),
                Route(submission.BATCH_PATH, self._submit_batch, methods=post),
                Route("/v1/transactions/{hash}", self._transaction, methods=get),
                Route("/v1/receipts/{hash}", self._receipt, methods=get),
                Route("/v1/blocks/{name}", self._block, methods=get),
                Route("/v1/transactions", self._submit, methods=post),
                Route("/v1/events", self._listen, methods=get),
                Route("/metrics", self._metrics_page, methods=get),
                Route("/openapi.json", self._openapi, methods=get),
            ],
            exception_handlers={
                QueryError: _answer_error,
                HTTPException: _answer_http_error,
                EngineApiError: _answer_engine_error,
                StoreDamaged: _answer_damage,
            },
        )

    def close(self) -> None:
        """Give the threads back."""
        self._threads.shutdown(cancel_futures=True)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        is_plain = (
            scope["type"] == "http" and scope["method"] == "GET" and not scope["query_string"]
        )
        path: str = scope.get("path", "")
        if is_plain and path.startswith(ACCOUNTS) and path.find("/", len(ACCOUNTS)) < 0:
            status, body = await self._plain_account(path[len(ACCOUNTS) :])
            length = (b"content-length", str(len(body)).encode())
            start = {"type": "http.response.start", "status": status}
            await send({**start, "headers": [*_JSON_HEADERS, length]})
            await send({"type": "http.response.body", "body": body})
            return
        await self._framework(scope, receive, send)

    async def _plain_account(self, address: str) -> tuple[int, bytes]:
        """Return status and body of the most frequent question."""
        try:
            return HTTPStatus.OK, _ENCODER.encode(await self._settled_account(address, AT[0]))
        except QueryError as error:
            return error.status, _ENCODER.encode(error.answer)

    async def _settled_account(self, address: str, at: At) -> answers.Account:
        """Return an account, letting others run while the writer is at work."""
        for _ in range(READ_ATTEMPTS):
            try:
                return self._queries.account(address, at)
            except Changing:
                await asyncio.sleep(seconds(READ_PAUSE_MS))
        raise busy("the executor is at work on a large block")

    async def _proven(self, work: Callable[..., Any], *arguments: Any) -> Any:
        """Return an answer with its proof; one that has to wait keeps no thread."""
        for _ in range(PROOF_ATTEMPTS):
            try:
                return await self._run(work, *arguments)
            except TooSoon as error:
                await asyncio.sleep(seconds(max(error.after_ms, PROOF_PAUSE_MIN_MS)))
        raise busy("others ask for proofs at other blocks")

    # The paths

    async def _status(self, request: Request) -> Response:
        _parameters(request)
        return json_response(self._queries.status())

    async def _account(self, request: Request) -> Response:
        asked = _parameters(request, "at", "proof")
        address, at = request.path_params["address"], _at(asked.get("at", AT[0]))
        if _flag(asked, "proof"):
            work = self._queries.proven_account
            return json_response(await self._proven(work, address, at))
        return json_response(await self._settled_account(address, at))

    async def _history(self, request: Request) -> Response:
        asked = _parameters(request, "before", "limit")
        before = _number(asked, "before", 0, BEFORE_MAX)
        limit = _number(asked, "limit", 1, PAGE_MAX)
        address = request.path_params["address"]
        count = PAGE_DEFAULT if limit is None else limit
        return json_response(await self._run(self._queries.history, address, before, count))

    async def _transaction(self, request: Request) -> Response:
        if request.path_params["hash"] == BATCH:
            raise HTTPException(HTTPStatus.METHOD_NOT_ALLOWED, headers={"Allow": "POST"})
        name = request.path_params["hash"]
        if _flag(_parameters(request, "proof"), "proof"):
            work = partial(self._queries.transaction, is_proven=True)
            return json_response(await self._proven(work, name))
        return json_response(await self._run(self._queries.transaction, name))

    async def _receipt(self, request: Request) -> Response:
        _parameters(request)
        return json_response(await self._run(self._queries.receipt, request.path_params["hash"]))

    async def _block(self, request: Request) -> Response:
        _parameters(request)
        return json_response(await self._run(self._queries.block, request.path_params["name"]))

    async def _submit(self, request: Request) -> Response:
        _parameters(request)
        _check_type(request, JSON)
        body = await self._body(request, submission.ONE_BYTES_MAX)
        try:
            sent = self._decode_one(body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise bad_request(
                "transaction.form",
                f"the body is no signed transaction: {error}",
                "compare it with NewTransaction in /openapi.json; amounts are strings of digits",
            ) from error
        accepted = await self._run(submission.submit_one, self._queries, sent)
        return json_response(accepted, HTTPStatus.ACCEPTED)

    async def _submit_batch(self, request: Request) -> Response:
        _parameters(request)
        kind = _check_type(request, submission.RECORDS, submission.ARROW)
        body = await self._body(request, submission.BATCH_BYTES_MAX)
        work = submission.submit_records if kind == submission.RECORDS else submission.submit_arrow
        return Response(await self._run(work, self._queries, body), media_type=kind)

    async def _listen(self, request: Request) -> Response:
        asked = _parameters(request, "kinds", "accounts", "last_event_id")
        wanted = parse_wanted(self._queries, asked.get("kinds"), asked.get("accounts"))
        last_id = request.headers.get("last-event-id") or asked.get("last_event_id")
        return EventResponse(self._events.stream(wanted, last_id))

    async def _metrics_page(self, request: Request) -> Response:
        _parameters(request)
        body, kind = self._metrics()
        return Response(body, headers={"content-type": kind})

    async def _openapi(self, request: Request) -> Response:
        _parameters(request)
        return Response(self._document, media_type=JSON)

    # Bounds

    async def _run(self, work: Callable[..., Any], *arguments: Any) -> Any:
        """Work on a thread, if not too many wait already."""
        if self._waiting >= WAITING_MAX:
            raise busy(f"{WAITING_MAX} questions wait already")
        self._waiting += 1
        loop = asyncio.get_running_loop()
        future = loop.run_in_executor(self._threads, partial(work, *arguments))
        future.add_done_callback(self._done)
        return await asyncio.shield(future)

    def _done(self, _: Any) -> None:
        self._waiting -= 1

    async def _body(self, request: Request, bytes_max: int) -> bytes:
        """Read a body; `BoundedProtocol` bounds its bytes and its time. Raises QueryError."""
        if self._bodies >= BODIES_MAX:
            raise busy(f"{BODIES_MAX} bodies are read already")
        self._bodies += 1
        body = bytearray()
        try:
            async for part in request.stream():
                body += part
                assert len(body) <= bytes_max, (len(body), bytes_max)
        except ClientDisconnect as error:
            raise bad_request(
                "query.body_cut", "the client went before its body was there", "send it again"
            ) from error
        finally:
            self._bodies -= 1
        return bytes(body)


def _parameters(request: Request, *names: str) -> Mapping[str, str]:
    """Return the parameters of a question; none unknown, none twice. Raises QueryError."""
    found: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        if name not in names or name in found:
            allowed = f"the parameters are {', '.join(names)}" if names else "there are none"
            raise bad_request(
                "query.parameter",
                f"the parameter {name[:40]!r} is unknown here, or stands twice",
                f"{allowed}; remove the others",
            )
        found[name] = value
    return found


def _at(text: str) -> At:
    for at in AT:
        if text == at:
            return at
    raise bad_request(
        "query.at", "there is no such block to look at", f"write one of {', '.join(AT)}"
    )


def _flag(asked: Mapping[str, str], name: str) -> bool:
    text = asked.get(name, "0")
    if text not in ("0", "1"):
        raise bad_request("query.flag", f"{name} is neither 0 nor 1", f"write {name}=1")
    return text == "1"


def _number(asked: Mapping[str, str], name: str, lowest: int, highest: int) -> int | None:
    text = asked.get(name)
    if text is None:
        return None
    is_number = text.isascii() and text.isdecimal() and len(text) <= 20
    if not is_number or not lowest <= int(text) <= highest:
        raise bad_request(
            "query.number",
            f"{name} is no number from {lowest} to {highest}",
            "leave it out, or write a number of this range",
        )
    return int(text)


def _check_type(request: Request, *kinds: str) -> str:
    """Return the content type of a body. Raises QueryError."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in kinds:
        raise QueryError(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            "query.content_type",
            "the body has a content type that is not read here",
            f"set the header content-type to {' or '.join(kinds)}",
        )
    return kind


async def _answer_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, QueryError)
    return json_response(error.answer, error.status)


async def _answer_http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    answer = answers.Error(
        code=f"http.{error.status_code}",
        what=str(error.detail),
        what_to_do="the paths and their methods stand in /openapi.json",
    )
    response = json_response(answer, error.status_code)
    response.headers.update(error.headers or {})
    return response


async def _answer_engine_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, EngineApiError)
    answer = answers.Error(
        code=f"engine.{error.code.name.lower()}",
        what=str(error),
        what_to_do="ask again in a second; if it stays, look at the log of the node",
    )
    return json_response(answer, HTTPStatus.SERVICE_UNAVAILABLE)


async def _answer_damage(_: Request, error: Exception) -> Response:
    assert isinstance(error, StoreDamaged)
    found = damaged()
    return json_response(found.answer, found.status)
