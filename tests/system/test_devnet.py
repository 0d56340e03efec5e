"""The network's own command and its campaign, in short forms on real processes."""

import json
import random
from pathlib import Path

import pytest
from click.testing import CliRunner

from bench import devnet
from tests.campaign.network import VALIDATORS, NetworkCampaign
from tests.system.networks import free_base_port

FAULTS = [
    *("--kill", "1@2s", "--restart", "1@6s", "--kill-executor", "2@9s"),
    *("--delay", "10ms", "--loss", "1%", "--partition", "0,1/2,3@14s:2s"),
]
SECONDS = 25


@pytest.mark.slow
def test_faults(tmp_path: Path, seed: int) -> None:
    """Killed, cut in two and slowed down, four validators keep one chain, which is replayed."""
    base_port = free_base_port(VALIDATORS, random.Random(seed))
    figures = tmp_path / "devnet.json"
    arguments = ["--duration", str(SECONDS), "--rate", "200", "--batch", "50", "--accounts", "100"]
    arguments += ["--home", str(tmp_path / "net"), "--base-port", str(base_port)]
    result = CliRunner().invoke(devnet.main, [*arguments, *FAULTS, "--json", str(figures)])
    assert result.exit_code == 0, result.output
    found = json.loads(figures.read_text())
    assert found["violations"] == []
    assert found["state_hash_equal"] is True
    assert found["replay_equal"] is True
    assert found["double_votes"] == 0
    assert found["heights_final"] > 0
    assert found["tx_in_chain"] == found["load"]["counts"]["finalized"] == 200 * SECONDS
    assert found["finality_ms"]["p50"] <= found["finality_ms"]["p99"]
    assert [row["starts"] for row in found["validators"]] == [1, 2, 1, 1]
    assert len(found["acts"]) == 5
    assert found["votes_seen"] > 0


@pytest.mark.slow
def test_kills(tmp_path: Path, seed: int) -> None:
    """Whoever is killed: one chain, nothing final lost, no double vote, and it goes on."""
    base_port = free_base_port(VALIDATORS, random.Random(seed))
    campaign = NetworkCampaign(tmp_path / "net", seed, base_port=base_port, minutes=3)
    tally = campaign.run(rounds=3)
    assert tally.violations == []
    assert sum(tally.rounds.values()) == 3
    assert tally.kills + tally.executor_kills >= 3
    assert tally.replayed_heights == tally.heights > 0
    assert tally.transactions > 0
