"""L1: leaders by power, with the oracle's integers."""

from itertools import accumulate

import pytest
from nacl.signing import SigningKey

from consensus.core.leader import leader_index
from consensus.core.types import Epoch, Hash32, View
from spec import oracle
from tests.consensus.crypto import RealCrypto

CRYPTO = RealCrypto(SigningKey(bytes(32)))
GENESIS, SEED = Hash32(b"g" * 32), Hash32(b"s" * 32)


@pytest.mark.parametrize(
    "powers", [[1], [1] * 4, [30, 10, 20, 40], [1, 2**62], [2**61, 2**61, 2**61, 1]]
)
def test_the_oracle_samples_the_same(powers: list[int]) -> None:
    """The bisection over sums and the oracle's subtraction agree, also near 2^63."""
    cumulative = list(accumulate(powers))
    for view in range(1, 100):
        ours = leader_index(CRYPTO, GENESIS, Epoch(3), View(view), SEED, cumulative)
        assert ours == oracle.leader_index(GENESIS, 3, view, SEED, powers)


def test_leaders_come_up_by_power() -> None:
    """A 30 % whale leads about 30 % of 4,000 views (fixed seed, so an exact count)."""
    powers = [30, *[10] * 7]
    cumulative = list(accumulate(powers))
    counts = [0] * len(powers)
    for view in range(1, 4_001):
        counts[leader_index(CRYPTO, GENESIS, Epoch(0), View(view), SEED, cumulative)] += 1
    assert 1_100 < counts[0] < 1_300
    assert all(320 < count < 480 for count in counts[1:])


def test_epoch_view_and_seed_matter() -> None:
    """Another epoch, seed or chain gives another sequence of leaders."""

    def sequence(genesis: bytes, epoch: int, seed: bytes) -> list[int]:
        return [oracle.leader_index(genesis, epoch, view, seed, [1] * 10) for view in range(1, 30)]

    base = sequence(GENESIS, 0, SEED)
    assert base != sequence(GENESIS, 1, SEED)
    assert base != sequence(GENESIS, 0, GENESIS)
    assert base != sequence(SEED, 0, SEED)
