"""What a running node shows at its loopback address: pages for people, programs and supervisors.

/healthz, /readyz, /metrics and JSON: /status, /validators, /headers/HEIGHT, /certificates/HEIGHT,
/evidence, /chain, /peers. Balances are the executor's business.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Protocol

from runtime.pages import Page, Pages, text_page

METRICS_TYPE = "text/plain; version=1.0.0; charset=utf-8"
JSON_TYPE = "application/json"
HEIGHT_DIGITS_MAX = 19


class NodeView(Protocol):
    """What a node tells about itself. All of it may be called from any thread, at any time.

    Values are what JSON holds; hashes, keys and signatures are hex digits.
    """

    def status(self) -> Mapping[str, Any]:
        """Return the state of the moment.

        At least chain_id, genesis_hash, key, role (`validator`, `observer` or `follower`),
        is_halted, epoch, view, finalized {height, hash, timestamp_ms}, executor {is_connected,
        boot_id, finalized_height}, peers [{key, votes, sync, payloads}], queues, drops,
        view_changes, missed_votes, stage_ms, pid.
        """
        ...

    def not_ready(self) -> str:
        """Return why the node does not take part at this moment; empty when it does."""
        ...

    def header(self, height: int) -> Mapping[str, Any] | None:
        """Return {height, hash, header}; None where no such height is final."""
        ...

    def certificate(self, height: int) -> Mapping[str, Any] | None:
        """Return {height, hash, certificate}: of the lowest certified height that is not below."""
        ...

    def validators(self) -> Mapping[str, Any]:
        """Return {epoch, validators, next_validators}: lists of {key, power}."""
        ...

    def evidence(self) -> Sequence[Mapping[str, Any]]:
        """Return what is proven against validators: [{key, epoch, view, offence, votes}]."""
        ...

    def metrics(self) -> bytes:
        """Return the page of the metrics, in Prometheus' text format."""
        ...


def json_page(value: Any, status: int = HTTPStatus.OK) -> Page:
    """Return a page of JSON."""
    body = json.dumps(value, indent=2).encode() + b"\n"
    return Page(status=status, content_type=JSON_TYPE, body=body)


def node_pages(
    view: NodeView,
    more: Mapping[str, Any],
    others: Mapping[str, Callable[[], Any]] | None = None,
) -> Pages:
    """Return the pages of a node.

    more: what the supervisor adds to /status, a value or a function without arguments that returns
    one; a mapping is laid over the node's own of the same name. others: path -> what makes the JSON
    of a page.
    """

    def status() -> Page:
        found = dict(view.status())
        for name, value in more.items():
            value = value() if callable(value) else value
            own = found.get(name)
            both = isinstance(own, Mapping) and isinstance(value, Mapping)
            found[name] = {**own, **value} if both and own is not None else value
        return json_page(found)

    def readiness() -> Page:
        why = view.not_ready()
        if why:
            return text_page(HTTPStatus.SERVICE_UNAVAILABLE, f"not taking part: {why}")
        return text_page(HTTPStatus.OK, "taking part")

    def metrics() -> Page:
        return Page(status=HTTPStatus.OK, content_type=METRICS_TYPE, body=view.metrics())

    pages: Pages = {
        "/healthz": lambda: text_page(HTTPStatus.OK, "ok"),
        "/readyz": readiness,
        "/status": status,
        "/validators": lambda: json_page(view.validators()),
        "/evidence": lambda: json_page({"evidence": list(view.evidence())}),
        "/metrics": metrics,
    }
    for path, make in (others or {}).items():
        pages[path] = _made_by(make)
    return pages


def height_pages(view: NodeView) -> dict[str, Callable[[str], Page]]:
    """Return the pages whose path ends in a height."""

    def of(find: Callable[[int], Mapping[str, Any] | None]) -> Callable[[str], Page]:
        def page(text: str) -> Page:
            if not (text.isascii() and text.isdecimal() and len(text) <= HEIGHT_DIGITS_MAX):
                return text_page(HTTPStatus.BAD_REQUEST, "after the last / comes a height")
            found = find(int(text))
            if found is None:
                return text_page(HTTPStatus.NOT_FOUND, f"no final block at height {text} here")
            return json_page(found)

        return page

    return {"/headers/": of(view.header), "/certificates/": of(view.certificate)}


def _made_by(make: Callable[[], Any]) -> Callable[[], Page]:
    return lambda: json_page(make())
