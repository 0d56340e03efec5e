"""The README's example in Python does what it says, typed as it stands there."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.keypair import KeyPair
from runtime.keystore import Keystore
from tests.campaign.process import REPOSITORY, command, surroundings

URL = "http://127.0.0.1:8553"
STOP_S = 30
RUN_S = 60


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    """Run a development chain whose keys are in this folder's `.tos/keys`; return its address."""
    folder = tmp_path / ".tos" / "keys"
    flags = ("--block-ms", "50", "--query-address", "127.0.0.1:0", "--keys", str(folder), "--json")
    process = subprocess.Popen(
        command("dev", *flags), cwd=REPOSITORY, env=surroundings(), stdout=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    assert process.stdout is not None
    text = ""
    for line in process.stdout:
        text += line
        if line.startswith("}"):
            break
    yield json.loads(text)["url"]
    process.terminate()
    assert process.wait(STOP_S) == 0
    process.stdout.close()


def test_the_wallet_from_python(url: str, tmp_path: Path) -> None:
    """It pays from dev0 to alice, and prints the receipt of a success."""
    Keystore(tmp_path / ".tos" / "keys").add("alice", KeyPair.of(bytes(32)).seed, None)
    text = (REPOSITORY / "README.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    [code] = [block for block in blocks if "Client(" in block]
    assert URL in code
    done = subprocess.run(
        [sys.executable, "-c", code.replace(URL, url)], cwd=REPOSITORY, capture_output=True,
        env=surroundings() | {"HOME": str(tmp_path), "PATH": os.environ["PATH"]}, text=True,
        timeout=RUN_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "status='SUCCESS'" in done.stdout
    assert "is_final=True" in done.stdout
