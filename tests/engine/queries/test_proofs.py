"""Proofs move the state between blocks, and not so often that blocks have to wait for them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.executor import Executor
from engine.queries.proof_trees import TooSoon
from engine.queries.proofs import MOVE_PAUSE_MS, AccountProver
from engine.types import At
from engine_api.types import Verdict
from tests.engine.homes import Home, key_pair


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        """Begin at zero."""
        self.ms = 0

    def __call__(self) -> int:
        """Return the time."""
        return self.ms


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """Return a home with three blocks, of which the first one is final."""
    made = Home(tmp_path / "home")
    parent, names = None, []
    for salt in range(3):
        parent = made.maker.block(parent, salt)
        answer = made.service.new_payload(parent.header, parent.payload)
        assert answer.verdict is Verdict.VALID
        names.append(parent.hash)
    made.service.forkchoice_updated(names[2], names[1], names[0])
    yield made
    made.close()


def test_who_asks_in_turn_moves_the_state_once_in_a_while(home: Home) -> None:
    """Only the first of many questions about two blocks moves it; later the next one may."""
    clock = Clock()
    prover = AccountProver(clock)
    key = key_pair(0)[0]

    def prove(at: At, *, is_known: bool = True) -> int:
        """Return how long to wait, 0 where there is a proof; nothing moves while one waits."""
        asked = key if is_known else b"\xab" * 32

        def work(executor: Executor) -> int:
            before = executor.chain.position
            found = prover.prove(executor, asked, at)
            if isinstance(found, TooSoon):
                assert executor.chain.position is before
                return found.after_ms
            assert (found is not None) == is_known
            return 0

        return home.service.ask("a proof", work)

    assert prove("head") == 0
    assert prove("finalized") == 0
    for _ in range(10):
        assert prove("head") == MOVE_PAUSE_MS
        assert prove("safe") == MOVE_PAUSE_MS
        assert prove("finalized") == 0
    clock.ms += MOVE_PAUSE_MS - 1
    assert prove("head") == 1
    clock.ms += 1
    assert prove("head", is_known=False) == 0
    assert prove("finalized", is_known=False) == MOVE_PAUSE_MS
    assert prove("head") == 0
