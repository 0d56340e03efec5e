"""The document of the interface: it has every path, and answers of any question agree with it."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import schemathesis

from engine.queries.openapi import document
from spec import oracle
from tests.engine.homes import key_pair
from tests.engine.queries.conftest import Node, transactions_of


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """Open a node with a few blocks, one of them not final."""
    node = Node(tmp_path_factory.mktemp("schema") / "home")
    for _ in range(3):
        node.add(6, finalized=1)
    yield node
    node.close()


def run_schemathesis(served: Node, seed: int, examples: int) -> subprocess.CompletedProcess[str]:
    """Let it ask whatever it likes; the endless answer of events is asked for elsewhere."""
    program = Path(sys.executable).with_name("schemathesis")
    arguments = [
        *("run", f"{served.server.url}/openapi.json", "--exclude-path", "/v1/events"),
        *("--max-examples", str(examples), "--seed", str(seed), "--no-color"),
    ]
    return subprocess.run(
        [program, *arguments], capture_output=True, text=True, check=False, timeout=600
    )


@pytest.mark.parametrize("examples", [10, pytest.param(300, marks=pytest.mark.slow)])
def test_any_question_is_answered_as_the_document_says(
    served: Node, seed: int, examples: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Schemathesis finds no crash, no undocumented answer, no bad question that is accepted."""
    monkeypatch.chdir(tmp_path)
    done = run_schemathesis(served, seed, examples)
    assert done.returncode == 0, done.stdout[-8_000:] + done.stderr[-2_000:]


def test_every_path_is_documented(served: Node) -> None:
    """The routes of the application and the paths of the document are the same."""
    routes = {route.path for route in served.server._api._framework.routes}  # type: ignore[attr-defined]
    assert routes == set(document()["paths"])
    assert all(re.match("/(v1/|metrics|openapi)", path) for path in routes)


def test_real_answers_have_their_schema(served: Node) -> None:
    """Questions that have an answer: account, history, transaction, receipt, block, with proof."""
    loaded = schemathesis.openapi.from_url(f"{served.server.url}/openapi.json")
    address = f"0x{key_pair(1)[0].hex()}"
    name = oracle.transaction_hash(transactions_of(served.blocks[0])[0]).hex()
    served.home.service.wait_indexed()
    asked: list[tuple[str, dict[str, str], dict[str, str]]] = [
        ("/v1/accounts/{address}", {"address": address}, {"proof": "1"}),
        ("/v1/accounts/{address}/transactions", {"address": address}, {"limit": "3"}),
        ("/v1/transactions/{hash}", {"hash": name}, {"proof": "1"}),
        ("/v1/receipts/{hash}", {"hash": name}, {}),
        ("/v1/blocks/{name}", {"name": "head"}, {}),
        ("/v1/status", {}, {}),
    ]
    for path, parameters, query in asked:
        case = loaded[path]["GET"].Case(path_parameters=parameters, query=query)
        response = case.call()
        assert response.status_code == 200
        case.validate_response(response)
