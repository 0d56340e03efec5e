"""The document of the HTTP interface, /openapi.json: made from the same types as the answers.

Spec of the format: OpenAPI 3.1. Paths here and routes in `app.py` are the same; a test compares.
"""

from typing import Any

import msgspec

from engine.pool_rules import PoolReason
from engine.queries import answers
from engine.queries.events import KINDS
from engine.queries.reader import BEFORE_MAX, PAGE_DEFAULT, PAGE_MAX
from engine.queries.submission import ARROW, RECORDS, NewTransaction
from engine.types import AT

VERSION = "1"
_HEX_32 = "^[0-9a-f]{64}$"
_KEY = "^0x[0-9a-fA-F]{64}$|^[a-z][a-z0-9]{0,15}1[qpzry9x8gf2tvdw0s3jn54khce6mua7l]{58}$"
_TYPES = [
    answers.Status,
    answers.Account,
    answers.History,
    answers.TransactionAnswer,
    answers.Receipt,
    answers.Block,
    answers.Accepted,
    answers.Error,
    answers.HeadEvent,
    answers.FinalizedEvent,
    answers.AccountEvent,
    answers.GapEvent,
    NewTransaction,
]
_ERRORS = {
    "400": "the question has no meaning",
    "404": "there is nothing of this name",
    "408": "the body did not arrive in time",
    "409": "it cannot be taken: its form or the state of the chain is against it",
    "413": "the body is too long",
    "415": "the body has another content type",
    "503": "the node is busy or stopping: ask again",
}


def document() -> dict[str, Any]:
    """Return the whole document."""
    _, schemas = msgspec.json.schema_components(_TYPES, ref_template="#/components/schemas/{name}")
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Queries of a node",
            "version": VERSION,
            "description": "Amounts, nonces and valid_until are strings of decimal digits, in base "
            "units; addresses are bech32m, or 0x and 64 hex digits. Every error has a code that "
            "does not change, a sentence, and what to do.",
        },
        "paths": _paths(),
        "components": {"schemas": schemas},
    }


def _paths() -> dict[str, Any]:
    address = _path_parameter("address", "an account", {"type": "string", "pattern": _KEY})
    name: dict[str, Any] = {
        "type": "string",
        "pattern": f"^([0-9a-f]{{64}}|{'|'.join(AT)}|0|[1-9][0-9]{{0,18}})$",
    }
    digest = _path_parameter("hash", "of a transaction", {"type": "string", "pattern": _HEX_32})
    proof = _parameter("proof", "1 adds a proof, see spec/proofs.md", {"enum": ["0", "1"]})
    at = _parameter("at", "the block to look at", {"enum": list(AT), "default": AT[0]})
    before = {"type": "integer", "minimum": 0, "maximum": BEFORE_MAX}
    limit = {"type": "integer", "minimum": 1, "maximum": PAGE_MAX, "default": PAGE_DEFAULT}
    text = {"text/plain": {"schema": {"type": "string"}}}
    return {
        "/v1/status": _get("The chain and where this node stands", "Status"),
        "/v1/accounts/{address}": _get(
            "An account: balance, nonce, proof", "Account", address, at, proof, errors="400 404"
        ),
        "/v1/accounts/{address}/transactions": _get(
            "Final transactions of an account, newest first",
            "History",
            address,
            _parameter("before", "`before` of the page that came first", before),
            _parameter("limit", "transactions of a page", limit),
            errors="400 404",
        ),
        "/v1/transactions/{hash}": _get(
            "Where a transaction is", "TransactionAnswer", digest, proof, errors="400 404"
        ),
        "/v1/receipts/{hash}": _get(
            "What a transaction came to", "Receipt", digest, errors="400 404"
        ),
        "/v1/blocks/{name}": _get(
            "A block by height, hash or word",
            "Block",
            _path_parameter("name", "height, hash, finalized, safe or head", name),
            errors="400 404",
        ),
        "/v1/transactions": {"post": _post_one()},
        "/v1/transactions/batch": {"post": _post_batch()},
        "/v1/events": {"get": _events()},
        "/metrics": {"get": {"summary": "Counters and gauges", "responses": _answers(text)}},
        "/openapi.json": {
            "get": {
                "summary": "This document",
                "responses": _answers({"application/json": {"schema": {"type": "object"}}}),
            }
        },
    }


def _ref(name: str) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}


def _answers(content: dict[str, Any], errors: str = "400", status: str = "200") -> dict[str, Any]:
    """Return what can come back: the answer, and errors by their numbers."""
    found: dict[str, Any] = {status: {"description": "the answer", "content": content}}
    for number in [*errors.split(), "503"]:
        found[number] = {"description": _ERRORS[number], "content": _ref("Error")}
    return found


def _get(summary: str, answer: str, *parameters: Any, errors: str = "400") -> dict[str, Any]:
    return {
        "get": {
            "summary": summary,
            "parameters": list(parameters),
            "responses": _answers(_ref(answer), errors),
        }
    }


def _parameter(name: str, meaning: str, schema: dict[str, Any]) -> dict[str, Any]:
    schema = schema if "type" in schema else {"type": "string", **schema}
    return {"name": name, "in": "query", "description": meaning, "schema": schema}


def _path_parameter(name: str, meaning: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": name, "in": "path", "required": True, "description": meaning, "schema": schema,
    }  # fmt: skip


def _post_one() -> dict[str, Any]:
    return {
        "summary": "Send a signed transfer",
        "requestBody": {"required": True, "content": _ref("NewTransaction")},
        "responses": _answers(_ref("Accepted"), "400 404 408 409 413 415", "202"),
    }


def _post_batch() -> dict[str, Any]:
    binary = {"schema": {"type": "string", "format": "binary"}}
    meaning = (
        "Records of 192 bytes come back as a byte each, in order. A stream in Arrow's format, not "
        "compressed, with the columns of a transaction comes back as one with a column `status`. "
        "The numbers: " + ", ".join(f"{reason.value} {reason.name}" for reason in PoolReason)
    )
    return {
        "summary": "Send many signed transfers",
        "description": meaning,
        "requestBody": {"required": True, "content": {RECORDS: binary, ARROW: binary}},
        "responses": _answers({RECORDS: binary, ARROW: binary}, "400 408 409 413 415"),
    }


def _events() -> dict[str, Any]:
    kinds = {"type": "string", "pattern": f"^({'|'.join(KINDS)})(,({'|'.join(KINDS)}))*$"}
    meaning = (
        "Server-sent events: head (HeadEvent), finalized (FinalizedEvent), account (AccountEvent) "
        "for the accounts that were named, and gap (GapEvent) where events were missed. Resumes "
        "after the header Last-Event-ID."
    )
    return {
        "summary": "Blocks, finality and chosen accounts as they come",
        "description": meaning,
        "parameters": [
            _parameter("kinds", "which events, separated by commas", kinds),
            _parameter("accounts", "addresses, separated by commas", {"type": "string"}),
            _parameter("last_event_id", "as the header Last-Event-ID", {"type": "string"}),
        ],
        "responses": _answers({"text/event-stream": {"schema": {"type": "string"}}}, "400 404"),
    }
