"""Blocks that were found INVALID: kept within their bounds, and without the payload if need be."""

from pathlib import Path

from engine.bad_blocks import BAD_BLOCKS_MAX, BadBlocks, Judgement

SAID = [Judgement(arm="serial", verdict="INVALID", reason="NONCE")]


def keep(kept: BadBlocks, height: int, name: int = 0) -> Path:
    """Keep a block of 100 bytes."""
    return kept.keep(
        height=height,
        block_hash=bytes([name]) * 32,
        header=b"head",
        payload=bytes(100),
        judgements=SAID,
    )


def test_without_room_the_payload_stays_away(tmp_path: Path) -> None:
    """What is said of a block is worth its few bytes; what it says is not, on a full disk."""
    for room, names in (
        (99, ["header.bin", "results.json"]),
        (100, ["header.bin", "payload.bin", "results.json"]),
    ):
        here = keep(BadBlocks(tmp_path, lambda room=room: room), room)  # type: ignore[misc]
        assert sorted(path.name for path in here.iterdir()) == names
        assert b'"NONCE"' in here.joinpath("results.json").read_bytes()


def test_the_same_block_is_kept_once_and_the_newest_are(tmp_path: Path) -> None:
    """A block that comes again takes the place of itself, not that of another one."""
    kept = BadBlocks(tmp_path, lambda: 10**6)
    folders = [keep(kept, height) for height in range(BAD_BLOCKS_MAX)]
    again = keep(kept, 3)
    assert not folders[3].exists()
    assert all(path.exists() for path in [*folders[:3], *folders[4:], again])
    another = keep(kept, 3, 1)
    assert not folders[0].exists()
    assert all(path.exists() for path in (folders[1], again, another))
    assert len(list(kept.folder.iterdir())) == BAD_BLOCKS_MAX


def test_what_a_person_puts_beside_them_stays(tmp_path: Path) -> None:
    """A copy under another name is no kept block: it counts for nothing and is never removed."""
    kept = BadBlocks(tmp_path, lambda: 10**6)
    copy = keep(kept, 1).rename(kept.folder / "looked at")
    kept.folder.joinpath("notes").write_text("why")
    folders = [keep(kept, height) for height in range(BAD_BLOCKS_MAX + 1)]
    assert [path.exists() for path in folders] == [False] + [True] * BAD_BLOCKS_MAX
    assert copy.joinpath("payload.bin").exists()
    assert kept.folder.joinpath("notes").read_text() == "why"
