"""Exported Parquet has the transactions and receipts that the oracle sees, and nothing else."""

import errno
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from engine import export
from engine.export import RECEIPTS, TRANSACTIONS, ExportError, export_blocks
from engine.store.store import Store
from kernels.backend import Backend, open_backend
from runtime import durable
from spec import oracle
from tests.engine.finished import SIZES, make_finished
from tests.engine.homes import FEE_RECIPIENT
from tests.engine.store.chains import chain_genesis


@pytest.fixture(scope="module")
def backend() -> Iterator[Backend]:
    """Open the arm that hashes, once."""
    made = open_backend("cpu", 1)
    yield made
    made.close()


def test_rows_equal_the_oracle(tmp_path: Path, backend: Backend) -> None:
    """Each row has the field, hash, lane and status of the oracle, in canonical order."""
    maker, blocks = make_finished(tmp_path / "home")
    with Store.open(tmp_path / "home") as store:
        done = export_blocks(store, backend, 1, len(blocks), tmp_path / "out")
    assert (done.blocks, done.transactions) == (len(SIZES), sum(SIZES))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "receipts.parquet",
        "transactions.parquet",
    ]
    transactions, receipts = (pq.read_table(path) for path in done.files)
    assert transactions.schema.equals(TRANSACTIONS)
    assert receipts.schema.equals(RECEIPTS)

    expected, statuses = [], []
    for height, block in enumerate(blocks, start=1):
        lanes = oracle.decode_payload(bytes(block.payload), maker.ledger.limits)
        before = maker.states[block.fields.parent_hash]
        result = oracle.execute_payload(
            before, bytes(block.payload), maker.ledger, height, FEE_RECIPIENT, False
        )
        index = 0
        for lane, members in enumerate(lanes):
            for item in members:
                status = result.statuses[index]
                expected.append((height, block.fields.timestamp_ms, index, lane, item))
                statuses.append((height, index, oracle.transaction_hash(item), status, item.fee))
                index += 1
    names = ("SUCCESS", "INSUFFICIENT_BALANCE", "BELOW_ACCOUNT_MINIMUM")
    assert [tuple(row.values()) for row in receipts.to_pylist()] == [
        (height, index, name, names[status], fee) for height, index, name, status, fee in statuses
    ]
    for row, (height, timestamp_ms, index, lane, item) in zip(
        transactions.to_pylist(), expected, strict=True
    ):
        assert (row["height"], row["timestamp_ms"]) == (height, timestamp_ms)
        assert (row["index"], row["lane"]) == (index, lane)
        assert row["hash"] == oracle.transaction_hash(item)
        for name in ("kind", "nonce", "valid_until", "amount", "fee", "memo", "sender"):
            assert row[name] == getattr(item, name), name
        assert (row["recipient"], row["signature"]) == (item.recipient, item.signature)


@pytest.mark.parametrize(("first", "last"), [(1, 5), (3, 2), (5, 5)])
def test_heights_that_are_not_final_are_refused(
    tmp_path: Path, backend: Backend, first: int, last: int
) -> None:
    """Only finalized heights are exported, and nothing is written for others."""
    make_finished(tmp_path / "home")
    with Store.open(tmp_path / "home") as store, pytest.raises(ExportError) as caught:
        export_blocks(store, backend, first, last, tmp_path / "out")
    assert caught.value.code == "export.range"
    assert "1 to 4" in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_chain_without_a_final_block_says_so(tmp_path: Path, backend: Backend) -> None:
    """Nobody is told to choose a height from 1 to 0."""
    Store.create(tmp_path / "home", chain_genesis())
    with Store.open(tmp_path / "home") as store, pytest.raises(ExportError) as caught:
        export_blocks(store, backend, 1, 1, tmp_path / "out")
    assert (caught.value.code, caught.value.why) == ("export.range", "no block is final yet")


def test_an_export_never_replaces_another(tmp_path: Path, backend: Backend) -> None:
    """A file that is there is kept, and the export says so."""
    make_finished(tmp_path / "home")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "receipts.parquet").write_text("mine")
    with Store.open(tmp_path / "home") as store, pytest.raises(ExportError) as caught:
        export_blocks(store, backend, 1, 2, tmp_path / "out")
    assert caught.value.code == "export.exists"
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["receipts.parquet"]


def test_receipts_that_find_no_room_leave_no_transactions(
    tmp_path: Path, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both files or none: one alone cannot be joined, and is in the way of the next try."""
    make_finished(tmp_path / "home")
    real = durable.sync_file

    def fail(path: Path) -> None:
        if path.name.startswith("receipts"):
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        real(path)

    monkeypatch.setattr(export, "sync_file", fail)
    with Store.open(tmp_path / "home") as store:
        with pytest.raises(OSError, match="No space left"):
            export_blocks(store, backend, 1, 2, tmp_path / "out")
        assert list((tmp_path / "out").iterdir()) == []
        monkeypatch.undo()
        assert export_blocks(store, backend, 1, 2, tmp_path / "out").blocks == 2


def test_files_get_their_names_together(tmp_path: Path) -> None:
    """Where the second name is taken by a folder meanwhile, the first one is given back."""
    parts, files = ([tmp_path / f"{n}{end}" for n in "ab"] for end in (".tmp", ""))
    for part in parts:
        part.write_text("rows")
    files[1].mkdir()
    with pytest.raises(OSError, match="directory"):
        export._give_names(parts, files)
    assert not files[0].exists()
