"""A home with a few finalized blocks that no process has open."""

from pathlib import Path

from tests.engine.homes import Home, Maker
from tests.engine_api.toy import Block

SIZES = (3, 0, 20, 7)


def make_finished(folder: Path) -> tuple[Maker, list[Block]]:
    """Make a home in a folder and finalize a block per size; everything is closed afterwards."""
    home = Home(folder)
    blocks: list[Block] = []
    try:
        for salt, count in enumerate(SIZES):
            block = home.maker.block(blocks[-1] if blocks else None, salt, count)
            home.service.new_payload(block.header, block.payload)
            home.service.forkchoice_updated(block.hash, block.hash, block.hash)
            blocks.append(block)
    finally:
        home.close()
    return home.maker, blocks
