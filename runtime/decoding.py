"""Types that foreign bytes are decoded into, looked at before threads are.

msgspec looks at a type when something is first decoded into it. Where two threads do that at the
same time, the process ends with a segmentation fault (0.22). So types are looked at when they are
defined, by the one thread that imports their module.
"""

from typing import TypeVar

import msgspec

T = TypeVar("T")


def decodable(kind: type[T]) -> type[T]:
    """Look at a type, and at all that it is made of; for every one that is decoded into."""
    msgspec.json.Decoder(kind)
    return kind
