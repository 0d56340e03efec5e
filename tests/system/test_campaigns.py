"""Short forms of the campaigns: a few kills, some thousand foreign inputs."""

from pathlib import Path

import pytest

from tests.campaign import fuzz, fuzz_links, fuzz_open, fuzz_socket
from tests.campaign.kills import Campaign

SETTINGS = ("--snapshot-every", "10", "--keep-blocks", "100")


def test_three_kills(tmp_path: Path, seed: int) -> None:
    """Killed at random instants, the executor keeps what it acknowledged and the right state."""
    campaign = Campaign(tmp_path, seed, SETTINGS, life_s_max=1.5)
    tally = campaign.run(kills=3)
    assert tally.violations == []
    assert tally.kills == 3


@pytest.mark.slow
def test_twenty_kills(tmp_path: Path, seed: int) -> None:
    """The same, often enough that starts, finalizations and snapshots are hit, too."""
    tally = Campaign(tmp_path, seed, SETTINGS).run(kills=20)
    assert tally.violations == []
    assert tally.blocks_finalized > 0
    assert tally.restarts_checked > 0


def test_foreign_bytes_in_every_decoder(seed: int) -> None:
    """20,000 inputs are refused with the decoders' own errors, or are what they encode to."""
    tally = fuzz.run(seed, inputs=20_000)
    assert tally.violations == []
    assert 0 < tally.accepted < tally.inputs


def test_foreign_messages_through_the_socket(tmp_path: Path, seed: int) -> None:
    """Whatever comes through the socket, the executor answers, and judges a good block after it."""
    tally = fuzz_socket.run(tmp_path, seed, messages=1_000)
    assert tally.violations == []
    assert tally.messages == 1_000


def test_foreign_bytes_to_what_is_open_to_others(tmp_path: Path, seed: int) -> None:
    """Gossip, HTTP: who misbehaves is banned, nothing fails inside, memory is bounded."""
    tally = fuzz_open.run(tmp_path, seed, requests=500)
    assert tally.violations == []
    assert 0 < tally.bans <= fuzz_open.PEERS


def test_foreign_bytes_at_a_mesh(seed: int) -> None:
    """Raw bytes, plain ZeroMQ and mad members: honest votes arrive, nothing is left behind."""
    tally = fuzz_links.run(seed, seconds=3)
    assert tally.violations == []
    assert tally.honest_votes > 0
    assert tally.counts["bans"] > 0
