"""L1: who leads a view, sampled by power with integers alone.

The seed is the hash of a block two epochs back, so that nobody who still can change it knows what
it decides. Spec: spec/consensus.md#leaders.
"""

from bisect import bisect_right
from collections.abc import Sequence

from consensus.core.types import Crypto, Epoch, Hash32, View

LEADER_CONTEXT = "tos leader v1"


def leader_index(
    crypto: Crypto,
    genesis_hash: Hash32,
    epoch: Epoch,
    view: View,
    seed: Hash32,
    cumulative: Sequence[int],
) -> int:
    """Return the index of the leader; `cumulative[i]` is the power of validators 0 to i.

    A 256-bit number modulo a total below 2^63: no validator is favoured by more than 2^-193.
    """
    data = genesis_hash + epoch.to_bytes(8, "little") + view.to_bytes(8, "little") + seed
    point = int.from_bytes(crypto.hash(LEADER_CONTEXT, data), "little") % cumulative[-1]
    return bisect_right(cumulative, point)
