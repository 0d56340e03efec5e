"""No two threads are the first to decode into a type: msgspec ends the process where they are."""

import ast
import subprocess
import sys

import pytest

from bench.machine import REPOSITORY
from tests.test_tidy import PYTHON_FILES, name, tree

PACKAGES = ("consensus", "engine", "engine_api", "runtime")
FILES = [path for path in PYTHON_FILES if name(path).split("/")[0] in PACKAGES]
THREADS = """
import sys, threading
import msgspec
from runtime.decoding import decodable

class Inner(msgspec.Struct):
    number: int
    text: str

class Outer(msgspec.Struct):
    rows: list[Inner]
    more: dict[str, Inner]

if sys.argv[1] == "looked at":
    decodable(Outer)
sys.setswitchinterval(1e-6)
together = threading.Barrier(4)

def decode():
    together.wait()
    msgspec.json.decode(b'{"rows":[],"more":{}}', type=Outer)

threads = [threading.Thread(target=decode) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""


def decoded_into(node: ast.AST) -> list[ast.expr]:
    """Return what a call of msgspec decodes into, where it says so there."""
    if not isinstance(node, ast.Call):
        return []
    words = ast.unparse(node.func)
    if words == "msgspec.convert":
        return node.args[1:2]
    if words == "msgspec.json.decode":
        return [word.value for word in node.keywords if word.arg == "type"]
    return []


def kinds_in(kind: ast.expr) -> set[str]:
    """Return the names of classes in a type such as list[Peer]; variables are not among them."""
    names = {ast.unparse(node).rpartition(".")[2] for node in ast.walk(kind)}
    return {word for word in names if word.lstrip("_")[:1].isupper() and word.isidentifier()}


def test_types_are_looked_at_when_they_are_defined() -> None:
    """Whatever the packages decode into bears `decodable`."""
    used, looked_at = set(), set()
    for path in FILES:
        for node in ast.walk(tree(path)):
            for kind in decoded_into(node):
                used |= kinds_in(kind)
            words = node.decorator_list if isinstance(node, ast.ClassDef) else []
            if isinstance(node, ast.ClassDef) and "decodable" in map(ast.unparse, words):
                looked_at.add(node.name)
    assert len(used) >= 7, used
    assert used <= looked_at


@pytest.mark.parametrize("case", range(3))
def test_threads_decode_into_what_was_looked_at(case: int) -> None:
    """Four threads that are first together all return."""
    done = subprocess.run(
        [sys.executable, "-c", THREADS, "looked at"],
        cwd=REPOSITORY, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, (case, done.stderr)
