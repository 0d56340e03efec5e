"""Frames of gossip: one encoding, compared with the specification, and nothing else is taken."""

import random

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from engine.gossip.frames import SHAPES, BadFrame, Kind, decode_frame, encode_frame, has_twins
from spec import oracle
from tests.campaign.mutate import mutate


@given(st.sampled_from(list(Kind)), st.integers(0, 40), st.integers(0, 2**64 - 1), st.data())
def test_a_frame_is_what_the_specification_says(
    kind: Kind, count: int, place: int, data: st.DataObject
) -> None:
    """The same bytes as the oracle's, and they decode to what was encoded."""
    shape = SHAPES[kind]
    count = min(max(count, shape.count_min), shape.count_max)
    place = place if shape.has_place else 0
    raw = data.draw(st.binary(min_size=count, max_size=count))
    items = np.repeat(np.frombuffer(raw, np.uint8), shape.item_bytes or 32).reshape(
        count, shape.item_bytes or 32
    )
    encoded = encode_frame(kind, items, place)
    assert encoded == oracle.gossip_frame(kind, [row.tobytes() for row in items], place)
    frame = decode_frame(encoded)
    assert (frame.kind, frame.place) == (kind, place)
    assert np.array_equal(frame.items, items)


def test_the_limits_are_those_of_the_specification() -> None:
    """Widths and counts of every kind, and the largest frame."""
    table = {
        kind: (shape.item_bytes, shape.count_min, shape.count_max) for kind, shape in SHAPES.items()
    }
    assert table == oracle.GOSSIP_ITEMS
    for width, _, count_max in table.values():
        assert 16 + width * count_max <= oracle.GOSSIP_FRAME_BYTES_MAX


def test_what_is_no_frame_is_refused(seed: int) -> None:
    """Both sides agree on every one of many changed frames, and what is taken encodes again."""
    rng = random.Random(seed)
    ones = np.ones((3, 192), np.uint8)
    examples = [
        encode_frame(Kind.PUSH, ones),
        encode_frame(Kind.FOUND, ones[:0]),
        encode_frame(Kind.WANT, ones[:, :32]),
        encode_frame(Kind.ASK, place=7),
        encode_frame(Kind.INVENTORY, ones[:, :32], 2**63),
    ]
    taken = 0
    for _ in range(3_000):
        data = mutate(rng, examples)
        try:
            frame = decode_frame(data)
        except BadFrame:
            assert not oracle.is_gossip_frame(data)
            continue
        assert oracle.is_gossip_frame(data)
        items = frame.items if SHAPES[frame.kind].item_bytes else frame.items[:0]
        assert encode_frame(frame.kind, items, frame.place) == data
        taken += 1
    assert taken


@pytest.mark.parametrize(
    ("rows", "is_double"), [([0, 1, 2], False), ([0, 1, 0], True), ([], False)]
)
def test_twins_are_found(rng: np.random.Generator, rows: list[int], is_double: bool) -> None:
    """Twice the same hash is seen; the same place alone is not the same hash."""
    hashes = rng.integers(0, 256, (3, 32), dtype=np.uint8)
    hashes[:, :8] = 5
    assert has_twins(hashes[rows]) == is_double
