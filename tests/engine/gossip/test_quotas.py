"""What one peer may cost: floods are dropped first, then banned."""

import numpy as np
import pytest

from engine.gossip import core
from engine.gossip.frames import Kind, encode_frame
from engine.gossip.peer import GossipLimits
from tests.engine.gossip.net import UNFIT, line, records_of


def test_a_flood_of_pushes_is_dropped_and_then_banned(rng: np.random.Generator) -> None:
    """Beyond the quota frames are dropped and counted; whoever goes on is banned."""
    limits = GossipLimits(records_per_s=100, records_burst=200)
    net, (a, b) = line(2, limits)
    frame = encode_frame(Kind.PUSH, records_of(rng, 150))
    net.inject(b, a, frame)
    assert not a.bans
    for _ in range(core.FLOOD_POINTS * 100):
        net.inject(b, a, frame)
    assert a.gossip.counts["dropped_quota"] == 100 * 150
    assert "may push" in a.bans[0].reason


def test_what_the_pool_refuses_weighs_more_in_the_quota(rng: np.random.Generator) -> None:
    """A peer whose transactions are all refused may push a quarter, and is not banned for it."""
    limits = GossipLimits(records_per_s=1, records_burst=400)
    for last, is_taken in ((0, True), (UNFIT, False)):
        net, (a, b) = line(2, limits)
        net.inject(b, a, encode_frame(Kind.PUSH, records_of(rng, 150, last)))
        net.judge(a)
        net.inject(b, a, encode_frame(Kind.PUSH, records_of(rng, 10)))
        assert (a.gossip.counts["dropped_quota"] == 0) is is_taken
        assert a.bans == []


@pytest.mark.parametrize(
    ("kind", "count", "name"),
    [
        (Kind.ANNOUNCE, 50, "dropped_hear_quota"),
        (Kind.WANT, 50, "dropped_serve_quota"),
        (Kind.ANNOUNCE, 1, "dropped_frame_quota"),
        (Kind.WANT, 1, "dropped_frame_quota"),
    ],
)
def test_a_flood_of_hashes_or_of_frames_is_dropped_and_then_banned(
    kind: Kind, count: int, name: str, rng: np.random.Generator
) -> None:
    """What nobody has costs as much as what is here; a small frame costs something, too."""
    limits = GossipLimits(
        frames_per_s=10, frames_burst=150,
        **dict.fromkeys(("heard_per_s", "served_per_s"), 100),
        **dict.fromkeys(("heard_burst", "served_burst"), 1_000),
    )  # fmt: skip
    net, (a, b) = line(2, limits)
    good = 1_000 // count if count > 1 else 140
    sent = 0
    while not a.bans and sent < 400:
        net.inject(b, a, encode_frame(kind, rng.integers(0, 256, (count, 32), np.uint8)))
        sent += 1
        assert a.gossip.counts[name] == 0 or sent > good
    assert "than a peer may" in a.bans[0].reason
    assert good + 100 <= sent <= good + 120
    assert a.gossip.counts[name] == 100 * count
