"""A node's pages: what they show of a node, and what they answer where there is nothing."""

import json
from collections.abc import Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import Any

import pytest

from consensus.client import ClientError, read_page
from consensus.pages import height_pages, node_pages
from runtime.pages import PageServer


class Standing:
    """A node that stands still."""

    def __init__(self) -> None:
        """Stand at height 3."""
        self.why_not_ready = ""

    def status(self) -> Mapping[str, Any]:
        """Return a status."""
        return {"view": 9, "executor": {"is_connected": True}}

    def not_ready(self) -> str:
        """Return what the test says."""
        return self.why_not_ready

    def header(self, height: int) -> Mapping[str, Any] | None:
        """Return headers up to 3."""
        return {"height": height} if height <= 3 else None

    def certificate(self, height: int) -> Mapping[str, Any] | None:
        """Return certificates up to 2."""
        return {"height": 2} if height <= 2 else None

    def validators(self) -> Mapping[str, Any]:
        """Return one validator."""
        return {"epoch": 0, "validators": [{"key": "aa", "power": 1}], "next_validators": []}

    def evidence(self) -> Sequence[Mapping[str, Any]]:
        """Return nothing."""
        return ()

    def metrics(self) -> bytes:
        """Return a page."""
        return b"tos_view 9\n"


@pytest.fixture
def node() -> Standing:
    """Return the node."""
    return Standing()


@pytest.fixture
def url(node: Standing) -> Iterator[str]:
    """Return where the node's pages are."""
    more = {"executor": lambda: {"restarts": 2}, "executor_pid": 77}
    pages = node_pages(node, more, {"/chain": lambda: {"chain_id": 7}})
    server = PageServer("127.0.0.1:0", pages, height_pages(node))
    yield f"http://{server.start()}"
    server.stop()


def test_the_supervisor_adds_to_the_status(url: str) -> None:
    """A table of both is laid together; other values are added."""
    assert read_page(url, "/status") == {
        "view": 9,
        "executor": {"is_connected": True, "restarts": 2},
        "executor_pid": 77,
    }


def test_pages_of_heights(url: str) -> None:
    """A height that is final has pages; others are not found, and words are refused."""
    assert read_page(url, "/headers/3") == {"height": 3}
    assert read_page(url, "/certificates/1") == {"height": 2}
    for path, status in (
        ("/headers/4", HTTPStatus.NOT_FOUND),
        ("/certificates/3", HTTPStatus.NOT_FOUND),
        ("/headers/-1", HTTPStatus.BAD_REQUEST),
        ("/headers/", HTTPStatus.BAD_REQUEST),
        (f"/headers/{10**20}", HTTPStatus.BAD_REQUEST),
    ):
        with pytest.raises(ClientError, match=str(int(status))):
            read_page(url, path)


def test_other_pages(url: str, node: Standing) -> None:
    """Validators, evidence and what others add are JSON; readiness has its reason."""
    assert read_page(url, "/validators")["validators"] == [{"key": "aa", "power": 1}]
    assert read_page(url, "/evidence") == {"evidence": []}
    assert read_page(url, "/chain") == {"chain_id": 7}
    pages = node_pages(node, {})
    assert pages["/readyz"]().status == HTTPStatus.OK
    node.why_not_ready = "no executor"
    page = pages["/readyz"]()
    assert (page.status, b"no executor" in page.body) == (HTTPStatus.SERVICE_UNAVAILABLE, True)
    assert pages["/metrics"]().body == b"tos_view 9\n"
    assert json.loads(pages["/status"]().body)["view"] == 9


@pytest.mark.parametrize("wrong", ["https://127.0.0.1:1", "127.0.0.1:1", "http://", "file:///x"])
def test_a_node_that_is_none_is_explained(wrong: str) -> None:
    """Whoever does not answer is named, with what to do."""
    with pytest.raises(ClientError) as caught:
        read_page(wrong, "/status")
    assert caught.value.code == "client.no_answer"
