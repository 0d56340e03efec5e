"""The generated protobuf code, and that numbers stand in one place in three languages."""

import re
import subprocess
import sys
from enum import IntEnum
from pathlib import Path

import pytest

from engine.errors import Reason
from engine_api import types
from engine_api.tos import engine_pb2 as pb

REPOSITORY = Path(__file__).resolve().parents[2]
PROTO = "engine_api/tos/engine.proto"
SPEC = (REPOSITORY / "spec" / "engine_api.md").read_text()


def test_generated_code_is_fresh(tmp_path: Path) -> None:
    """What stands in the tree is what `make proto` writes."""
    arguments = ["-I", str(REPOSITORY), f"--python_out={tmp_path}", f"--pyi_out={tmp_path}", PROTO]
    command = [sys.executable, "-m", "grpc_tools.protoc", *arguments]
    subprocess.run(command, check=True, cwd=REPOSITORY)
    for name in ("engine_pb2.py", "engine_pb2.pyi"):
        made = (tmp_path / "engine_api" / "tos" / name).read_text()
        assert made == (REPOSITORY / "engine_api" / "tos" / name).read_text(), "run `make proto`"


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (types.Verdict, "Verdict"),
        (types.ForkchoiceStatus, "ForkchoiceStatus"),
        (types.ErrorCode, "ErrorCode"),
    ],
)
def test_numbers_are_those_of_the_messages(ours: type[IntEnum], theirs: str) -> None:
    """Every name has the number of engine.proto, and none is missing on either side."""
    descriptor = pb.DESCRIPTOR.enum_types_by_name[theirs]
    prefix = re.sub(r"(?<!^)(?=[A-Z])", "_", theirs).upper()
    expected = {value.name.removeprefix(f"{prefix}_"): value.number for value in descriptor.values}
    assert expected.pop("UNSPECIFIED") == 0
    assert expected == {item.name: item.value for item in ours}


@pytest.mark.parametrize(
    "ours", [types.Verdict, types.ErrorCode, types.SubmitResult], ids=lambda kind: kind.__name__
)
def test_numbers_are_those_of_the_specification(ours: type[IntEnum]) -> None:
    """Every name stands in a table of the page with its number."""
    for item in ours:
        assert re.search(rf"^\| {item.name} \| {item.value} \|", SPEC, re.MULTILINE), item


def test_reasons_are_those_of_the_specification() -> None:
    """The header's reasons stand in the page with the executor's numbers."""
    found = re.findall(
        r"^\| ((?:[A-Z_]+, )*[A-Z_]+) \| ((?:\d+, )*\d+) \| (?:is|has|n|c)", SPEC, re.M
    )
    pairs = [
        (name, int(number))
        for names, numbers in found
        for name, number in zip(names.split(", "), numbers.split(", "), strict=True)
        if name in Reason.__members__
    ]
    expected = [(reason.name, reason.value) for reason in Reason if reason < 32]
    assert sorted(pairs) == sorted(expected)


def test_chunks_are_field_two_everywhere() -> None:
    """What `chunks.py` writes by hand is legal in each of the four streams."""
    for kind in (pb.NewPayloadPart, pb.PayloadAnswerPart, pb.BodyPart, pb.SubmitPart):
        chunk = kind.DESCRIPTOR.fields_by_name["chunk"]
        assert chunk.number == 2
        assert kind.DESCRIPTOR.fields_by_name["head"].number == 1
