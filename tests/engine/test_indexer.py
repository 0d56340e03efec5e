"""The thread that indexes: blocks that come while it catches up."""

from pathlib import Path

import pytest

from engine import indexer
from engine.service import Service
from engine.verdicts import FinalizedBlock
from tests.engine.homes import Home
from tests.engine_api.toy import Block


def test_blocks_that_find_no_place_while_old_ones_are_indexed_are_not_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More become final while the last old one is made again than may wait: all are entered."""
    home = Home(tmp_path / "home")
    real = Service._make_again
    newest: list[Block] = []

    def finalize(count: int) -> None:
        for _ in range(count):
            block = home.maker.block(newest[-1] if newest else None, 1, 1)
            newest.append(block)
            home.service.new_payload(block.header, block.payload)
            home.service.forkchoice_updated(block.hash, block.hash, block.hash)

    def make_again(service: Service, height: int) -> FinalizedBlock | None:
        made = real(service, height)
        if len(newest) == 1:
            home.service = service
            finalize(indexer.PENDING_MAX + 2)
        return made

    finalize(1)
    home.service.wait_indexed()
    home.close()
    for name in ("transactions", "accounts"):
        for path in (home.folder / name).iterdir():
            path.unlink()
    monkeypatch.setattr(Service, "_make_again", make_again)
    home.open()
    home.service.wait_indexed()
    assert home.store.finalized.height == indexer.PENDING_MAX + 3
    assert home.store.unindexed() == []
    home.close()
