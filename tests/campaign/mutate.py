"""Foreign bytes near what is right: mutations of good examples, cheap and repeatable."""

import random
from collections.abc import Sequence

OPERATIONS_MAX = 4
BYTES_MAX = 2**16
"""of an example after mutation"""
NUMBERS = (
    0,
    1,
    2,
    127,
    128,
    255,
    256,
    2**15,
    2**16 - 1,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**63,
    2**64 - 1,
)
RANDOM_SHARE = 0.05
"""of inputs that are random bytes alone"""


def mutate(rng: random.Random, examples: Sequence[bytes]) -> bytes:
    """Return an input: an example after a few random changes, or random bytes."""
    if rng.random() < RANDOM_SHARE:
        return rng.randbytes(rng.randrange(0, 400))
    data = bytearray(rng.choice(examples))
    for _ in range(rng.randrange(1, OPERATIONS_MAX + 1)):
        _change(rng, data, examples)
    return bytes(data[:BYTES_MAX])


def _change(rng: random.Random, data: bytearray, examples: Sequence[bytes]) -> None:
    """Make one random change in place."""
    choice = rng.randrange(8)
    place = rng.randrange(len(data)) if data else 0
    if choice == 0 and data:
        data[place] ^= 1 << rng.randrange(8)
    elif choice == 1 and data:
        data[place] = rng.randrange(256)
    elif choice == 2:
        width = rng.choice((1, 2, 4, 8))
        number = rng.choice(NUMBERS) & (1 << 8 * width) - 1
        start = place - place % width
        data[start : start + width] = number.to_bytes(width, "little")
    elif choice == 3:
        del data[place : place + rng.randrange(1, 65)]
    elif choice == 4:
        del data[place:]
    elif choice == 5:
        data[place:place] = rng.randbytes(rng.randrange(1, 65))
    elif choice == 6:
        data[place:place] = data[place : place + rng.randrange(1, 257)]
    else:
        other = rng.choice(examples)
        start = rng.randrange(len(other)) if other else 0
        data[place : place + rng.randrange(1, 257)] = other[start : start + rng.randrange(1, 257)]
