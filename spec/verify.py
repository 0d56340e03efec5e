"""Verify a proof from a node, by the Python blocks of spec/proofs.md alone.

`python -m spec.verify FILE [--block-hash HASH]`: prints what the file proves, or exits with 1 and
says why it proves nothing. Standard library and `blake3` only; no code of a node.
"""

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

PAGE = Path(__file__).with_name("proofs.md")
_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def load() -> ModuleType:
    """Return the page's blocks as a module; a traceback names the line of the page."""
    module = ModuleType("spec.proofs")
    sys.modules[module.__name__] = module
    text = PAGE.read_text(encoding="utf-8")
    for match in _BLOCK.finditer(text):
        line = text[: match.start(1)].count("\n")
        exec(compile("\n" * line + match[1], str(PAGE), "exec"), module.__dict__)
    return module


def main(arguments: Sequence[str] | None = None) -> int:
    """Verify one file and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m spec.verify", description=__doc__)
    parser.add_argument("file", type=Path, metavar="FILE", help="a proof, or an answer with one")
    parser.add_argument("--block-hash", default="", metavar="HASH", help="of the final block")
    options = parser.parse_args(arguments)
    rules = load()
    try:
        with options.file.open("rb") as file:
            data = file.read(rules.FILE_BYTES_MAX + 1)  # one more is refused as too long
    except OSError as error:
        sys.stderr.write(f"{options.file} cannot be read: {error.strerror}\n")
        return 1
    try:
        shown = rules.verify_file(data, options.block_hash.removeprefix("0x").lower())
    except rules.NotProven as why:
        sys.stderr.write(f"not proven: {why}\n")
        return 1
    sys.stdout.write(f"proven, if the block {shown['block_hash']} is final:\n")
    sys.stdout.write(json.dumps(shown, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
