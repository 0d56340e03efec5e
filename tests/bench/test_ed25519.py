"""What `bench/ed25519.py` promises to whoever types it."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography.exceptions import InvalidSignature
from nacl.exceptions import BadSignatureError

from bench import ed25519
from kernels.backend import DeviceUnavailable
from kernels.processor import LANES


def test_rows_say_what_was_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every path, thread count and batch has a row with all fields; the baseline's ratio is 1."""
    monkeypatch.setattr(ed25519, "SAMPLE_NS", 1)
    path = tmp_path / "rows.json"
    arguments = ["--batch", "1,9", "--threads", "1,2", "--repeat", "2", "--json", str(path)]
    result = CliRunner().invoke(ed25519.main, arguments)
    assert result.exit_code == 0, result.output
    rows = json.loads(path.read_text())
    names = {"backend", "libsodium", "libsodium from Python", "OpenSSL from Python"}
    names |= {"one by one", "known keys"} if LANES else set()
    assert {(row["path"], row["threads"], row["batch"]) for row in rows} == {
        (name, threads, batch) for name in names for threads in (1, 2) for batch in (1, 9)
    }
    for row in rows:
        assert set(row) == {
            "path", "lanes", "withheld", "threads", "batch", "per_s", "ratio_to_libsodium",
            "machine",
        }  # fmt: skip
        assert 0 < row["per_s"]["min"] <= row["per_s"]["median"] <= row["per_s"]["max"]
        assert row["machine"]["cpu"]
        if row["path"] == "libsodium":
            assert row["ratio_to_libsodium"] == 1
        assert row["path"] in result.output


@pytest.mark.slow
def test_lesser_processors_have_rows() -> None:
    """Each kind of lanes below this process's is measured where its kernels lack instructions."""
    if not ed25519.lesser_lanes():
        pytest.skip("this processor has one kind of lanes")
    name = ed25519.lesser_lanes()[-1]
    rows = ed25519.run_lesser(name, ["--batch", "9", "--threads", "1", "--repeat", "1"])
    assert [(row["path"], row["lanes"]) for row in rows] == [
        ("backend", name), ("known keys", name), ("libsodium", name),
    ]  # fmt: skip
    assert all(ed25519.LESSER[name] in row["withheld"] for row in rows)


@pytest.mark.parametrize(
    "arguments", [["--batch", "0"], ["--threads", "x"], ["--json", "missing/rows.json"]]
)
def test_senseless_arguments_exit_with_2(arguments: list[str]) -> None:
    """Nothing is measured for arguments that make no sense."""
    assert CliRunner().invoke(ed25519.main, arguments).exit_code == 2


def test_a_wrong_verdict_is_no_figure() -> None:
    """A benchmark of signatures that are not valid stops."""
    keys, signed, messages = (array.copy() for array in ed25519.make_rows(9, 1))
    signed[3, 40] ^= 1
    for verify in ed25519.paths((keys, signed, messages), 1).values():
        with pytest.raises((AssertionError, BadSignatureError, InvalidSignature)):
            verify()


def test_gpu_without_a_device_exits_with_3(monkeypatch: pytest.MonkeyPatch) -> None:
    """`--gpu` without a device says what is missing and what to do, before anything is run."""
    monkeypatch.setattr(ed25519, "run", None)
    try:
        ed25519.open_verifier()
        why = ""
    except DeviceUnavailable as error:
        why = str(error)
    if not why:
        pytest.skip("there is a device")
    result = CliRunner().invoke(ed25519.main, ["--gpu"])
    assert result.exit_code == 3
    assert f"ed25519.py: --gpu: {why}; without --gpu, only CPU paths run" in result.stderr
