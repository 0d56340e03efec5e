"""What `bench/end_to_end.py` promises to whoever types it."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from bench import end_to_end
from bench.end_to_end_blocks import make_chain

SMALL = ["--blocks", "6", "--transactions", "300", "--accounts", "500", "--threads", "1"]


@pytest.mark.parametrize("signatures", ["known", "new"])
def test_a_run_says_what_was_measured(tmp_path: Path, signatures: str) -> None:
    """Every figure of the format is there, in order, and nothing is left on the disk."""
    path = tmp_path / "run.json"
    arguments = [*SMALL, "--signatures", signatures, "--directory", str(tmp_path)]
    result = CliRunner().invoke(end_to_end.main, [*arguments, "--json", str(path)])
    assert result.exit_code == 0, result.output
    said: dict[str, Any] = json.loads(path.read_text())
    rate = said["tx_per_s"]
    assert 0 < rate["min"] <= rate["median"] <= rate["max"]
    assert {"decode", "verify", "append", "finalize"} <= set(said["stage_ns_per_tx"])
    assert said["log_bytes_per_tx"] > 184
    assert said["disk_bytes_per_s"] > 0
    assert said["ratio_to_ceiling"] > 0
    assert said["machine"]["commit"]
    assert [item.name for item in tmp_path.iterdir()] == ["run.json"]
    assert "tx/s sustained" in result.output


def test_blocks_are_the_same_every_time() -> None:
    """The same arguments give the same chain, signatures included; another seed another one."""
    first, again, other = (
        make_chain(accounts=50, per_block=20, blocks=2, seed=seed) for seed in (1, 1, 2)
    )
    assert first.headers == again.headers
    assert first.payloads == again.payloads
    assert first.hashes != other.hashes
