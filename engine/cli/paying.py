"""Hand a signed payment over, so that nobody pays twice because an answer was lost.

A refusal means that nothing was paid. A connection that broke, a time that passed or Ctrl-C mean
nothing: the node may have the record. Whoever is told that it was not sent signs another one, with
the next nonce, and both are paid.
"""

from engine.amounts import AmountError, format_amount
from engine.client import Client, NodeError
from engine.queries.answers import Status
from engine.signing import transaction_hash

_REFUSALS = ("transaction.", "address.", "query.busy")
"""Beginnings of codes with which a node says that it did not take a record."""
FEE_SHARE = 10
"""A fee that nobody typed is at most this part of the amount: it comes from a node."""
_TAKEN = ("pending", "included", "finalized")


class MaybeSent(Exception):
    """Nobody knows whether the node has the record; the argument tells a person what to do."""


def minimum_fee(status: Status, amount: int) -> int:
    """Return the chain's minimum in base units, as the node says.

    amount: base units. Raises AmountError if it is more than 1 / FEE_SHARE of the amount: a person
    decides about that.
    """
    fee = int(status.fee_minimum)
    if FEE_SHARE * fee > amount:
        text, paid = (format_amount(units, status.decimals) for units in (fee, amount))
        raise AmountError(
            "amount.fee",
            what=f"the fee would be {text} {status.symbol}, for {paid} {status.symbol}",
            where="the chain's minimum, as the node says",
            why=f"a fee of more than a {FEE_SHARE}th of the amount is not paid unasked",
            what_to_do=f"add --fee {text} if you want to pay it",
        )
    return fee


def hand_over(client: Client, record: bytes) -> None:
    """Send a signed record and return when the node has it.

    Raises NodeError if the node refuses it, MaybeSent if that is not known.
    """
    name = transaction_hash(record).hex()
    # On a new connection the record goes out once. On one that was kept the client may ask twice,
    # and a node that started anew in between, or is busy, would refuse what it has handed on.
    client.close()
    try:
        if client.send(record).hash == name:
            return
        why = "the node answered with another hash"
    except NodeError as error:
        # The answer alone may be lost, and a record that somebody else sent before is refused.
        is_taken = _is_taken(client, name)
        if is_taken:
            return
        if is_taken is not None and error.code.startswith(_REFUSALS):
            raise
        why = str(error)
    except KeyboardInterrupt:
        why = "stopped by the user"
    nonce = int.from_bytes(record[8:16], "little")
    raise MaybeSent(
        f"{name} may be sent or not: {why}\n"
        f"see where it is: python -m engine transaction {name}\n"
        f"to send it again add --nonce {nonce}: only one of both can be paid"
    )


def _is_taken(client: Client, name: str) -> bool | None:
    """Say whether the node has a transaction; None where it does not answer that."""
    try:
        return client.transaction(name).state in _TAKEN
    except NodeError as error:
        return False if error.code == "transaction.unknown" else None
