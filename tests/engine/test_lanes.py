"""Packing: one lane per sender, in the order of first appearance, as the specification packs."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import lanes
from engine.codec import encode_payload
from engine.columns import empty, from_records
from engine.lanes import pack
from spec import oracle
from tests.engine.batches import random_records
from tests.engine.ledgers import key


@given(st.lists(st.integers(0, 6), max_size=60))
def test_packed_as_specified(senders: list[int]) -> None:
    """The payload of packed lanes is the oracle's, byte for byte."""
    made = [
        oracle.Transaction(1, nonce, 9, nonce, 1, key(sender), key(0))
        for nonce, sender in enumerate(senders)
    ]
    records = b"".join(oracle.encode_transaction(t) for t in made)
    columns = from_records(np.frombuffer(records, np.uint8).reshape(-1, 192))
    packed, offsets = pack(columns)
    assert encode_payload(packed, offsets) == oracle.encode_payload(oracle.pack_lanes(made))


@pytest.mark.parametrize("senders", [1, 3, 1000])
def test_order_within_a_lane_is_kept(rng: np.random.Generator, senders: int) -> None:
    """Each lane has one sender, no sender has two lanes, and rows keep their order."""
    records = random_records(rng, 1000)
    keys = random_records(rng, senders)[:, :32]
    records[:, 64:96] = keys[rng.integers(0, senders, 1000)]
    records[:, 8:16] = np.arange(1000, dtype=np.uint64).view(np.uint8).reshape(-1, 8)
    packed, offsets = pack(from_records(records))
    seen = []
    for start, stop in itertools.pairwise(offsets):
        lane = packed.sender[start:stop]
        assert (lane == lane[0]).all()
        assert (np.diff(packed.nonce[start:stop].astype(np.int64)) > 0).all()
        seen.append(lane[0].tobytes())
    assert len(set(seen)) == len(seen)
    firsts = packed.nonce[offsets[:-1]].astype(np.int64)
    assert (np.diff(firsts) > 0).all()


def test_nothing_packs_to_no_lanes() -> None:
    """No transactions are no lanes, and one offset."""
    packed, offsets = pack(empty())
    assert len(packed.kind) == 0
    assert offsets.tolist() == [0]


def test_keys_made_to_collide_are_told_apart() -> None:
    """Keys whose mixed sums are equal on purpose have different labels all the same."""
    words = np.zeros((6, 4), np.uint64)
    row = np.arange(6, dtype=np.uint64)
    # Adding k * s1 to the first word and taking k * s0 from the second leaves the sum.
    words[:, 0] = row * lanes._SPREAD[1]
    words[:, 1] = np.zeros(6, np.uint64) - row * lanes._SPREAD[0]
    keys = words.view(np.uint8)
    mixed = (words * lanes._SPREAD).sum(axis=1, dtype=np.uint64)
    assert len(np.unique(mixed)) == 1
    order = [0, 1, 0, 5, 1, 2, 0]
    labels = lanes.key_labels(np.ascontiguousarray(keys[order]))
    assert len(np.unique(labels)) == 4
    for first, second in itertools.combinations(range(len(order)), 2):
        assert (labels[first] == labels[second]) == (order[first] == order[second])
