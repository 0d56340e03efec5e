"""E1, B2a: timers that double and shrink again, and blocks at the chain's pace."""

from itertools import pairwise

from consensus.core import events as ev
from consensus.core.types import ZERO_HASH, Kind
from tests.consensus.lone import Lone
from tests.consensus.net import Net, make_chain

NOTARIZE, NULLIFY, FINALIZE = Kind.NOTARIZE, Kind.NULLIFY, Kind.FINALIZE
T_LEAD_MS, T_ADV_MS = 50 + 60, 50 + 120


def nullified_at(lone: Lone, limit_ms: int) -> int:
    """Return after how long the current view gets this node's NULLIFY."""
    view, start = lone.replica.view, lone.now_ms
    while (NULLIFY, view) not in lone.votes() and lone.now_ms - start < limit_ms:
        lone.wait(1)
    return lone.now_ms - start


def outage(views: int) -> Lone:
    """Return a replica that saw so many views nullified and leads none of the next two."""
    for own in range(4):
        lone = Lone(own=own)
        if own not in (lone.leader(views + 1), lone.leader(views + 2)):
            for view in range(1, views + 1):
                lone.hear(lone.certificate(NULLIFY, view))
            return lone
    raise AssertionError("two views have at most two leaders")


def test_timers_double_for_every_four_failed_views() -> None:
    """E1: T_lead = idle + (2 delta + E) b with b = 1, 1, 2, 4."""
    for views, b in ((0, 1), (3, 1), (4, 2), (8, 4)):
        assert nullified_at(outage(views), 1_000) == 50 + 60 * b


def test_a_finalization_shortens_the_timers_that_run() -> None:
    """E1: the view entered by a notarization gets its T_lead anew when that becomes final."""
    lone = outage(8)
    propose = lone.propose(9, lone.header(9), 0)
    lone.hear(propose)
    lone.hear(lone.certificate(NOTARIZE, 9, propose.proposal))
    assert lone.replica.view == 10
    lone.wait(10)
    lone.hear(lone.certificate(FINALIZE, 9, propose.proposal))
    assert nullified_at(lone, 1_000) == T_LEAD_MS - 10


def test_a_leader_divides_its_limits_by_b() -> None:
    """E1: after failed views GetPayload asks for less, so that a slow executor can follow."""
    for own in range(4):
        lone = Lone(own=own)
        if lone.leader(9) == own:
            break
    for view in range(1, 9):
        lone.hear(lone.certificate(NULLIFY, view))
    lone.wait(60)
    built = [c.request for c in lone.calls if isinstance(c.request, ev.GetPayload)]
    assert [(r.payload_bytes_max, r.transactions_max) for r in built] == [(2**18, 2**8)]


def test_blocks_come_at_the_chains_pace() -> None:
    """B2a: no two proposals of a good chain are nearer than block_interval."""
    net = Net(make_chain([1] * 4))
    net.run(3_000)
    times = [b.header.timestamp_ms for _, b in sorted(net.nodes[0].finalized.items())]
    gaps = [after - before for before, after in pairwise(times[1:])]
    assert len(gaps) > 40
    assert min(gaps) >= 40
    assert max(gaps) <= 40 + 50


def test_backoff_counts_only_since_the_last_finalization() -> None:
    """E1: votes of views long final change no timer."""
    lone = outage(4)
    propose = lone.propose(5, lone.header(5), 0)
    lone.hear(propose)
    lone.hear(lone.certificate(FINALIZE, 5, propose.proposal))
    lone.hear(lone.vote(NULLIFY, 4, ZERO_HASH, lone.own), 1)
    assert nullified_at(lone, 1_000) == T_LEAD_MS
    assert T_ADV_MS > T_LEAD_MS
