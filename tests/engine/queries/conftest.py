"""A node with queries over HTTP, and blocks of the oracle in it."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from engine.queries.server import QueryServer
from spec import oracle
from tests.engine.homes import Home
from tests.engine_api.toy import Block


class Node:
    """A home, its query server, and a client of it."""

    def __init__(self, folder: Path) -> None:
        """Serve a fresh home at a free port."""
        self.home = Home(folder)
        self.server = QueryServer(
            "127.0.0.1:0",
            self.home.service,
            self.home.store,
            software="test 1",
            metrics=lambda: (b"tos_up 1\n", "text/plain; version=0.0.4"),
        )
        self.server.start()
        self.http = httpx.Client(base_url=self.server.url, timeout=20)
        self.blocks: list[Block] = []

    def close(self) -> None:
        """End everything."""
        self.http.close()
        self.server.stop()
        self.home.close()

    def add(self, count: int = 3, *, finalized: int = 0, transactions: Any = None) -> Block:
        """Follow a new block; `finalized` is how many blocks stay above the finalized one."""
        parent = self.blocks[-1] if self.blocks else None
        maker = self.home.maker
        if transactions is None:
            block = maker.block(parent, len(self.blocks), count)
        else:
            block = maker.block_of(parent, transactions, 1_000 * (len(self.blocks) + 1))
        self.home.service.new_payload(block.header, block.payload)
        self.blocks.append(block)
        final = len(self.blocks) - 1 - finalized
        name = self.blocks[final].hash if final >= 0 else maker.hash
        self.home.service.forkchoice_updated(block.hash, block.hash, name)
        return block

    def get(self, path: str, status: int = 200, **parameters: Any) -> Any:
        """Return a JSON answer with this status."""
        answer = self.http.get(path, params=parameters or None)
        assert answer.status_code == status, answer.text
        return answer.json()


def transactions_of(block: Block) -> list[Any]:
    """Return the transactions of a block in canonical order."""
    lanes = oracle.decode_payload(block.payload, oracle.Limits())
    return [transaction for lane in lanes for transaction in lane]


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    """Open a node."""
    opened = Node(tmp_path / "home")
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def address() -> Callable[[bytes], str]:
    """Return what writes keys as addresses."""
    return lambda key: str(oracle.encode_address(key, "tos"))
