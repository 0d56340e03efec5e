"""A node's pages as commands read them: JSON from a loopback address, or an explained error."""

import http.client
import json
from pathlib import Path
from typing import Any

from consensus.home import Home
from runtime.errors import ExplainedError
from runtime.urls import NodeUrl

TIMEOUT_S = 10
ANSWER_BYTES_MAX = 2**26


class ClientError(ExplainedError):
    """A node that does not answer as one. Codes begin with `client.`"""


def url_of(home: Path) -> str:
    """Return the URL of the node that runs on a home; raises ClientError."""
    try:
        address = Home(folder=home).http_address.read_text().strip()
    except OSError as error:
        raise ClientError(
            "client.not_running",
            what="no node runs on this home",
            where=str(home),
            why=f"{error.filename} is missing: {error.strerror}",
            what_to_do=f"start it: python -m consensus run --home {home}",
        ) from error
    return f"http://{address}"


def read_page(url: str, path: str) -> Any:
    """Return the JSON at a path of a node; raises ClientError."""
    body = read_bytes(url, path)
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise _failed(url, f"{path} is no JSON: {error}") from error


def read_bytes(url: str, path: str) -> bytes:
    """Return what stands at a path of a node, at most ANSWER_BYTES_MAX; raises ClientError."""
    try:
        place = NodeUrl.of(url)
    except ValueError as error:
        raise _failed(url, str(error)) from error
    connection = http.client.HTTPConnection(place.host, place.port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read(ANSWER_BYTES_MAX + 1)
    except (OSError, http.client.HTTPException, UnicodeError) as error:
        raise _failed(url, str(error) or type(error).__name__) from error
    finally:
        connection.close()
    if answer.status != http.client.OK:
        raise _failed(url, f"{path}: {answer.status} {body[:200].decode('utf-8', 'replace')}")
    if len(body) > ANSWER_BYTES_MAX:
        raise _failed(url, f"{path} has more than {ANSWER_BYTES_MAX} bytes")
    return body


def _failed(url: str, why: str) -> ClientError:
    return ClientError(
        "client.no_answer",
        what="the node does not answer",
        where=url,
        why=why.strip(),
        what_to_do="see that it runs, and that --url or --home names it",
    )
