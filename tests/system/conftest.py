"""An executor of its own for each test, ended by the test that started it."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.system.executors import Subject, make_subject

MakeSubject = Callable[..., Subject]


@pytest.fixture
def make(tmp_path: Path, seed: int) -> Iterator[MakeSubject]:
    """Return a way to make homes; their processes are ended with the test."""
    made: list[Subject] = []

    def one(folder: Path = tmp_path, settings: tuple[str, ...] = ()) -> Subject:
        subject = make_subject(folder, random.Random(seed + len(made)), settings)
        made.append(subject)
        return subject

    yield one
    for subject in made:
        if subject.executor.is_running:
            subject.executor.kill()
