"""Why a question has no answer: a code, a sentence, what to do, and a status of HTTP.

The texts are for people and may change; codes do not.
"""

from http import HTTPStatus

from engine.errors import AddressError
from engine.queries.answers import Error


class QueryError(Exception):
    """A question that has no answer."""

    def __init__(self, status: HTTPStatus, code: str, what: str, what_to_do: str) -> None:
        """Keep what is answered."""
        super().__init__(what)
        self.status = status
        self.answer = Error(code=code, what=what, what_to_do=what_to_do)


def not_found(code: str, what: str, what_to_do: str) -> QueryError:
    """Return an error: there is nothing of this name."""
    return QueryError(HTTPStatus.NOT_FOUND, code, what, what_to_do)


def bad_request(code: str, what: str, what_to_do: str) -> QueryError:
    """Return an error: the question has no meaning."""
    return QueryError(HTTPStatus.BAD_REQUEST, code, what, what_to_do)


def refused(code: str, what: str, what_to_do: str) -> QueryError:
    """Return an error: the question is clear, and the state of the chain is against it."""
    return QueryError(HTTPStatus.CONFLICT, code, what, what_to_do)


def busy(what: str) -> QueryError:
    """Return an error that passes by itself."""
    sentence = "ask again in a second"
    return QueryError(HTTPStatus.SERVICE_UNAVAILABLE, "query.busy", what, sentence)


def bad_address(error: AddressError) -> QueryError:
    """Return an error about a text that is no address of this chain."""
    return not_found(error.code, f"{error.what}: {error.why}", error.what_to_do)


def pruned(what: str) -> QueryError:
    """Return an error: it was here once."""
    return not_found(
        "query.pruned", f"{what} is no longer kept here", "ask a node that keeps all blocks"
    )


def damaged() -> QueryError:
    """Return an error: the disk has not kept what was written."""
    return QueryError(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "query.damaged",
        "what is stored here of this is not what was written",
        "ask another node; whoever runs this one should look at its disk",
    )
