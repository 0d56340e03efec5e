"""Load the specification's Python blocks as one module: `from spec import oracle`.

The blocks of all pages share one namespace, in reading order. A traceback names the page and the
line of Markdown that raised. Only tests and benchmarks import this.
"""

import re
import sys
from pathlib import Path
from typing import Any

PAGES = (
    "README",
    "signatures",
    "address",
    "transaction",
    "lanes",
    "payload",
    "state_hash",
    "receipts",
    "genesis",
    "block",
    "gossip",
    "consensus",
)
_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: Path) -> list[tuple[int, str]]:
    """Return (lines before the block, source) of each fenced Python block of a page."""
    text = page.read_text(encoding="utf-8")
    return [(text[: match.start(1)].count("\n"), match[1]) for match in _BLOCK.finditer(text)]


def _load() -> None:
    for name in PAGES:
        page = Path(__file__).with_name(f"{name}.md")
        for line, source in blocks(page):
            code = compile("\n" * line + source, str(page), "exec")
            exec(code, sys.modules[__name__].__dict__)  # the page is part of this program


def __getattr__(name: str) -> Any:
    """Refuse a name that no page defines; for type checkers: names come from the pages."""
    raise AttributeError(f"no page of the specification defines {name}")


_load()
