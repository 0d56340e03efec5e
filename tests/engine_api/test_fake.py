"""What the fake does beyond the conformance suite: it counts executions, and its bounds hold."""

import numpy as np

from engine_api.types import SubmitResult, Verdict
from tests.engine_api import toy
from tests.engine_api.conftest import ToyDriver
from tests.engine_api.driver import build, chain, request_on
from tests.engine_api.fake import OWN_BUILDS_MAX, QUEUE_RECORDS_MAX


def test_an_own_build_is_executed_once(toy_driver: ToyDriver) -> None:
    """Once to build it; not again for its header, by name or with its bytes."""
    engine = toy_driver.fake
    engine.submit(toy_driver.records(2))
    block = build(toy_driver, request_on(toy_driver, None))
    assert engine.new_payload(block.header, None).verdict is Verdict.VALID
    assert engine.new_payload(block.header, block.payload).verdict is Verdict.VALID
    assert engine.executed_count == 1


def test_another_header_is_no_own_build(toy_driver: ToyDriver) -> None:
    """What differs in the key is executed like everybody's."""
    engine = toy_driver.fake
    block = build(toy_driver, request_on(toy_driver, None))
    other = block.changed(fee_recipient=bytes(32))
    assert engine.new_payload(other.header, other.payload).verdict is Verdict.VALID
    assert engine.executed_count == 2


def test_what_is_included_leaves_the_queue(toy_driver: ToyDriver) -> None:
    """The next payload has what is left."""
    engine = toy_driver.fake
    engine.submit(toy_driver.records(4))
    first = build(toy_driver, request_on(toy_driver, None, transactions=3))
    engine.new_payload(first.header, None)
    second = build(toy_driver, request_on(toy_driver, first), first)
    assert second.fields.transaction_count == 1


def test_builds_and_queue_are_bounded(toy_driver: ToyDriver, rng: np.random.Generator) -> None:
    """The oldest build is forgotten, a record too much is refused for now."""
    engine = toy_driver.fake
    for _ in range(OWN_BUILDS_MAX + 3):
        engine.submit(toy.record(int(rng.integers(2**60))))
        build(toy_driver, request_on(toy_driver, None))
    assert len(engine._builds) == OWN_BUILDS_MAX
    batch = b"".join(toy.record(number) for number in range(QUEUE_RECORDS_MAX + 5))
    results = engine.submit(batch).results
    assert results.count(SubmitResult.QUEUE_FULL) == 5 + OWN_BUILDS_MAX + 3


def test_a_restart_loses_what_is_not_final(toy_driver: ToyDriver) -> None:
    """The fake has no disk: that is why blocks are sent again."""
    blocks = chain(toy_driver, 3)
    toy_driver.fake.forkchoice_updated(blocks[2].hash, blocks[2].hash, blocks[0].hash)
    toy_driver.restart()
    assert toy_driver.fake.get_status().unfinalized == ()
    assert toy_driver.fake.get_status().finalized.hash == blocks[0].hash
