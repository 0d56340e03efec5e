"""The conformance of every call but NewPayload; `conformance.py` puts the whole suite together."""

from dataclasses import replace as changed
from functools import partial

import numpy as np

from engine.errors import Reason
from engine_api.types import (
    BODIES_MAX,
    BOOT_ID_BYTES,
    RECORD_BYTES,
    SUBMIT_RECORDS_MAX,
    Attributes,
    BlockId,
    EngineApiError,
    ErrorCode,
    ForkchoiceStatus,
    Retry,
    SubmitResult,
    Verdict,
)
from tests.engine_api.driver import (
    UNKNOWN,
    Driver,
    build,
    chain,
    follow,
    refused,
    request_on,
    send,
)
from tests.engine_api.toy import Block


class CallsConformance:
    """Status, forkchoice, building, bodies; see `Conformance`."""

    # Status and health

    def test_it_starts_at_genesis(self, driver: Driver) -> None:
        """A fresh engine stands at genesis and follows nothing."""
        status = driver.engine.get_status()
        assert status.finalized == status.head == driver.genesis
        assert status.genesis_hash == driver.genesis.hash
        assert status.unfinalized == ()
        assert status.versions.api == 1
        assert len(status.boot_id) == BOOT_ID_BYTES
        assert len(status.params_hash) == 32

    def test_every_answer_carries_the_same_boot_id(self, driver: Driver) -> None:
        """One process, one boot id, in every kind of answer."""
        engine, block = driver.engine, driver.block(None, 1)
        boot_id = engine.get_status().boot_id
        genesis = driver.genesis.hash
        answers = [
            engine.get_payload(request_on(driver, None)).boot_id,
            engine.new_payload(block.header, block.payload).boot_id,
            engine.forkchoice_updated(genesis, genesis, genesis).boot_id,
            next(iter(engine.bodies_by_hash([block.hash]))).boot_id,
            next(iter(engine.bodies_by_range(1, 1))).boot_id,
            engine.validator_set(0).boot_id,
            engine.health().boot_id,
            engine.submit(driver.records(1)).boot_id,
        ]
        assert answers == [boot_id] * len(answers)

    def test_health_follows_finalization(self, driver: Driver) -> None:
        """Health says that it serves, up to which height, and how much disk is left."""
        health = driver.engine.health()
        assert health.not_serving == ""
        assert health.finalized_height == 0
        assert health.free_disk_bytes > 0
        block = chain(driver, 1)[0]
        follow(driver, block.hash, block.hash)
        assert driver.engine.health().finalized_height == 1

    def test_a_validator_set_ascends_and_has_its_id(self, driver: Driver) -> None:
        """Epoch 0 and any later one have a set, in ascending order of keys."""
        for epoch in (0, 1, 10**6):
            answer = driver.engine.validator_set(epoch)
            assert answer.epoch == epoch
            keys = [one.key for one in answer.validators]
            assert keys == sorted(set(keys))
            assert keys
            assert all(one.power > 0 for one in answer.validators)
            assert len(answer.validator_set_id) == 32

    # ForkchoiceUpdated

    def test_the_head_moves_between_branches(self, driver: Driver) -> None:
        """Any block of the tree can be the head, as often as one likes."""
        left, right = chain(driver, 2, salt=1), chain(driver, 3, salt=2)
        for block in (left[1], right[2], right[0], left[0], left[1], left[1]):
            assert follow(driver, block.hash, driver.genesis.hash) is ForkchoiceStatus.OK
            head = driver.engine.get_status().head
            assert head == BlockId(height=block.height, hash=block.hash)
        assert len(driver.engine.get_status().unfinalized) == 5

    def test_an_unknown_hash_changes_nothing(self, driver: Driver) -> None:
        """SYNCING wherever one of the three is unknown."""
        block = chain(driver, 1)[0]
        before = driver.engine.get_status()
        for unknown in range(3):
            head, safe, finalized = (
                UNKNOWN if index == unknown else block.hash for index in range(3)
            )
            status = driver.engine.forkchoice_updated(head, safe, finalized).status
            assert status is ForkchoiceStatus.SYNCING
        assert driver.engine.get_status() == before

    def test_finalizing_abandons_what_does_not_descend(self, driver: Driver) -> None:
        """After a finalization only its descendants are left; it is irreversible and repeatable."""
        left, right = chain(driver, 3, salt=1), chain(driver, 2, salt=2)
        for _ in range(2):
            assert follow(driver, left[2].hash, left[1].hash) is ForkchoiceStatus.OK
        status = driver.engine.get_status()
        assert status.finalized == BlockId(height=2, hash=left[1].hash)
        assert status.head == BlockId(height=3, hash=left[2].hash)
        assert status.unfinalized == (status.head,)
        error = refused(lambda: follow(driver, left[2].hash, left[0].hash))
        assert (error.code, error.retry) == (ErrorCode.CONFLICT, Retry.NO)
        error = refused(lambda: send(driver, right[1]))
        assert error.code is ErrorCode.CONFLICT
        assert send(driver, driver.block(right[1], 2)).verdict is Verdict.SYNCING
        assert driver.engine.get_status() == status

    def test_a_sibling_of_finalized_never_wins(self, driver: Driver) -> None:
        """Naming an abandoned block is CONFLICT, or SYNCING where it is forgotten."""
        left, right = chain(driver, 1, salt=1), chain(driver, 1, salt=2)
        follow(driver, left[0].hash, left[0].hash)
        before = driver.engine.get_status()
        code = None
        try:
            status = follow(driver, right[0].hash, right[0].hash)
        except EngineApiError as error:
            code, status = error.code, None
        assert (code, status) in (
            (ErrorCode.CONFLICT, None),
            (None, ForkchoiceStatus.SYNCING),
        )
        assert driver.engine.get_status() == before

    def test_head_descends_from_safe_and_safe_from_finalized(self, driver: Driver) -> None:
        """Three blocks that are not on one branch are an error of the call."""
        left, right = chain(driver, 2, salt=1), chain(driver, 1, salt=2)
        engine, genesis = driver.engine, driver.genesis.hash
        for head, safe, finalized in (
            (left[0], left[1], genesis),
            (left[1], right[0], genesis),
            (left[1], left[0], left[1].hash),
            (right[0], right[0], left[0].hash),
        ):
            call = partial(engine.forkchoice_updated, head.hash, safe.hash, finalized)
            error = refused(call)
            assert error.code is ErrorCode.INVALID_ARGUMENT
        assert engine.get_status().finalized == driver.genesis

    def test_the_same_tree_in_any_order(self, driver: Driver, rng: np.random.Generator) -> None:
        """Blocks of a random tree, sent in random order until all are VALID, with repetitions."""
        blocks: list[Block] = []
        for salt in range(1, 9):
            shallow = [block for block in blocks if block.height < driver.unfinalized_max]
            index = int(rng.integers(len(shallow) + 1))
            blocks.append(driver.block(shallow[index] if index < len(shallow) else None, salt))
        valid: set[bytes] = set()
        for _ in range(len(blocks)):
            for index in rng.permutation(len(blocks)):
                block = blocks[index]
                answer = send(driver, block)
                parent = block.fields.parent_hash
                expected = parent in valid or parent == driver.genesis.hash
                assert answer.verdict is (Verdict.VALID if expected else Verdict.SYNCING)
                if expected:
                    valid.add(block.hash)
        assert len(valid) == len(blocks)
        for index in rng.permutation(len(blocks)):
            status = follow(driver, blocks[index].hash, driver.genesis.hash)
            assert status is ForkchoiceStatus.OK

    # GetPayload and Submit

    def test_an_own_build_is_valid_without_its_bytes(self, driver: Driver) -> None:
        """What was submitted is built, and the finished header alone makes it VALID and durable."""
        results = driver.engine.submit(driver.records(3)).results
        assert results == bytes([SubmitResult.QUEUED]) * 3
        block = build(driver, request_on(driver, None))
        assert block.fields.transaction_count == 3
        assert block.fields.payload_commitment == driver.commitment(bytes(block.payload))
        assert driver.engine.new_payload(block.header, None).verdict is Verdict.VALID
        follow(driver, block.hash, block.hash)
        body = next(iter(driver.engine.bodies_by_hash([block.hash])))
        assert bytes(body.payload) == bytes(block.payload)

    def test_an_own_build_is_compared_all_the_same(self, driver: Driver) -> None:
        """Being recognised is no excuse for a header that says something else."""
        driver.engine.submit(driver.records(2))
        block = build(driver, request_on(driver, None))
        for name in ("transactions_root", "receipts_hash", "state_hash"):
            answer = driver.engine.new_payload(block.changed(**{name: UNKNOWN}).header, None)
            assert answer.verdict is Verdict.INVALID
            assert answer.reason == Reason[name.upper()]
        assert send(driver, block).verdict is Verdict.VALID

    def test_limits_bound_what_is_built(self, driver: Driver) -> None:
        """No more transactions than asked for; zero is an empty payload, and it is VALID."""
        driver.engine.submit(driver.records(4))
        for most in (0, 1, 2):
            block = build(driver, request_on(driver, None, transactions=most))
            assert block.fields.transaction_count == most
        assert send(driver, block).verdict is Verdict.VALID

    def test_without_work_an_empty_payload_comes(self, driver: Driver) -> None:
        """After wait_ms there is an answer, with work or without."""
        block = build(driver, request_on(driver, None, wait_ms=20))
        assert block.fields.transaction_count == 0
        assert send(driver, block).verdict is Verdict.VALID

    def test_building_needs_a_known_parent_and_its_height(self, driver: Driver) -> None:
        """Unknown parent: SYNCING. Wrong height, too early, above the limits: an error."""
        engine, first = driver.engine, chain(driver, 1)[0]
        good = request_on(driver, first)
        assert engine.get_payload(good).built is not None
        assert engine.get_payload(changed(good, parent_hash=UNKNOWN)).built is None
        attributes, limits = good.attributes, driver.limits
        early = Attributes(
            timestamp_ms=first.fields.timestamp_ms, fee_recipient=attributes.fee_recipient
        )
        short = Attributes(timestamp_ms=attributes.timestamp_ms, fee_recipient=bytes(31))
        for bad in (
            changed(good, height=1),
            changed(good, height=3),
            changed(good, attributes=early),
            changed(good, attributes=short),
            changed(good, parent_hash=bytes(31)),
            changed(good, limits=changed(limits, bytes=limits.bytes + 1)),
            changed(good, limits=changed(limits, transactions=limits.transactions + 1)),
            changed(good, limits=changed(limits, objects=limits.objects + 1)),
        ):
            error = refused(partial(engine.get_payload, bad))
            assert error.code is ErrorCode.INVALID_ARGUMENT

    def test_a_batch_is_whole_records(self, driver: Driver) -> None:
        """Another length is refused as a whole; a record that no payload can carry is told."""
        engine, records = driver.engine, driver.records(2)
        for batch in (b"", records[:-1], bytes(RECORD_BYTES * (SUBMIT_RECORDS_MAX + 1))):
            error = refused(partial(engine.submit, batch))
            assert error.code is ErrorCode.INVALID_ARGUMENT
        results = engine.submit(records[:RECORD_BYTES] + bytes(RECORD_BYTES)).results
        assert results == bytes([SubmitResult.QUEUED, SubmitResult.REFUSED])

    # Bodies

    def test_bodies_come_back_as_they_were_sent(self, driver: Driver) -> None:
        """By hash in the order asked for, unfinalized ones too; unknown ones are not found."""
        blocks = chain(driver, 3)
        follow(driver, blocks[2].hash, blocks[0].hash)
        asked = [blocks[2].hash, UNKNOWN, blocks[0].hash, driver.genesis.hash, blocks[2].hash]
        bodies = list(driver.engine.bodies_by_hash(asked))
        expected = [blocks[2].header, b"", blocks[0].header, b"", blocks[2].header]
        assert [body.header for body in bodies] == expected
        assert [body.is_found for body in bodies] == [True, False, True, False, True]
        assert bytes(bodies[0].payload) == bytes(blocks[2].payload)
        assert len(bodies[1].payload) == 0

    def test_a_range_has_finalized_blocks_only(self, driver: Driver) -> None:
        """Every height has its body; above finalized it is not found."""
        blocks = chain(driver, 3)
        follow(driver, blocks[2].hash, blocks[1].hash)
        bodies = list(driver.engine.bodies_by_range(1, 4))
        assert [body.header for body in bodies] == [blocks[0].header, blocks[1].header, b"", b""]
        assert bytes(bodies[1].payload) == bytes(blocks[1].payload)

    def test_lengths_and_counts_are_checked(self, driver: Driver) -> None:
        """What has a wrong length or range is INVALID_ARGUMENT, with no exception to it."""
        engine, short = driver.engine, bytes(31)
        for call in (
            lambda: engine.forkchoice_updated(short, short, short),
            lambda: list(engine.bodies_by_hash([])),
            lambda: list(engine.bodies_by_hash([short])),
            lambda: list(engine.bodies_by_hash([UNKNOWN] * (BODIES_MAX + 1))),
            lambda: list(engine.bodies_by_range(0, 1)),
            lambda: list(engine.bodies_by_range(1, 0)),
            lambda: list(engine.bodies_by_range(1, BODIES_MAX + 1)),
        ):
            assert refused(call).code is ErrorCode.INVALID_ARGUMENT
