"""H1: an epoch: its heights, its validator set, what its votes sign, who leads its views.

Spec: spec/consensus.md#epochs.
"""

from dataclasses import dataclass, field
from itertools import accumulate, pairwise

from consensus.core.codec import validator_set_bytes
from consensus.core.leader import leader_index
from consensus.core.safety import Rules
from consensus.core.types import (
    VALIDATOR_COUNT_MAX,
    Chain,
    Crypto,
    Epoch,
    Hash32,
    Height,
    Kind,
    PublicKey,
    Validator,
    View,
)

SET_CONTEXT = "tos validator set v1"
VOTE_CONTEXTS = {
    Kind.NOTARIZE: "tos notarize v1",
    Kind.NULLIFY: "tos nullify v1",
    Kind.FINALIZE: "tos finalize v1",
}
EPOCHS_HELD_MAX = 16
"""latest epochs whose sets are kept in memory, for evidence"""
LEADERS_CACHED_MAX = 1_024


class InvalidSet(Exception):
    """Validators that make no set: empty, too many, unsorted, a key or power that is none."""


def hash_set(crypto: Crypto, validators: tuple[Validator, ...]) -> Hash32:
    """P1: return the validator_set_id; raises InvalidSet."""
    keys = [validator.public_key for validator in validators]
    if not 1 <= len(keys) <= VALIDATOR_COUNT_MAX:
        raise InvalidSet(f"{len(keys)} validators; a set has 1 to {VALIDATOR_COUNT_MAX}")
    if any(a >= b for a, b in pairwise(keys)):
        raise InvalidSet("the keys of a set ascend, none twice")
    for key in keys:
        if not crypto.is_public_key(key):
            raise InvalidSet(f"{key.hex()} is no public key: not in the prime-order subgroup")
    powers = [validator.power for validator in validators]
    if min(powers) < 1 or sum(powers) >= 2**63:
        raise InvalidSet("a power is 1 or more, and their sum is below 2^63")
    pairs = tuple((validator.public_key, validator.power) for validator in validators)
    return crypto.hash(SET_CONTEXT, validator_set_bytes(pairs))


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochContext:
    """All that is fixed for the length of an epoch."""

    number: Epoch
    validators: tuple[Validator, ...]
    keys: tuple[PublicKey, ...]
    weights: tuple[int, ...]
    """what each vote counts, by signer"""
    cumulative: tuple[int, ...]
    quorum: int
    set_id: Hash32
    index_of: dict[PublicKey, int]
    prefixes: tuple[bytes, ...]
    """per kind: the head of what votes sign; index 0 is unused"""
    seed: Hash32
    """L1: hash of the last block of the epoch before the one before"""
    first_height: Height
    end_height: Height
    """the boundary: last height of the epoch"""
    _leaders: dict[View, int] = field(default_factory=dict)

    def leader(self, crypto: Crypto, genesis_hash: Hash32, view: View) -> int:
        """L1: return the index of a view's leader."""
        found = self._leaders.get(view)
        if found is None:
            found = leader_index(
                crypto, genesis_hash, self.number, view, self.seed, self.cumulative
            )
            if len(self._leaders) >= LEADERS_CACHED_MAX:
                self._leaders.clear()
            self._leaders[view] = found
        return found

    def vote_message(self, kind: Kind, view: View, pid: Hash32) -> bytes:
        """M3: return what a vote signs."""
        return self.prefixes[kind] + view.to_bytes(8, "little") + pid


def open_epoch(
    *,
    chain: Chain,
    crypto: Crypto,
    rules: Rules,
    number: int,
    validators: tuple[Validator, ...],
    seed: Hash32,
) -> EpochContext:
    """Return an epoch; raises InvalidSet."""
    set_id = hash_set(crypto, validators)
    domains = {
        kind: crypto.hash(context, chain.genesis_hash) for kind, context in VOTE_CONTEXTS.items()
    }
    keys = tuple(validator.public_key for validator in validators)
    powers = [validator.power for validator in validators]
    weights = tuple(rules.weight(power) for power in powers)
    length = chain.parameters.heights_per_epoch
    epoch = Epoch(number)
    return EpochContext(
        number=epoch,
        validators=validators,
        keys=keys,
        weights=weights,
        cumulative=tuple(accumulate(powers)),
        quorum=rules.quorum(sum(weights)),
        set_id=set_id,
        index_of={key: index for index, key in enumerate(keys)},
        prefixes=(
            b"",
            *(rules.vote_prefix(domains[kind], epoch, set_id) for kind in Kind),
        ),
        seed=seed,
        first_height=Height(number * length + 1),
        end_height=Height((number + 1) * length),
    )
