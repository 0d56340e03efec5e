"""How long a single transaction takes while nothing else happens: sent, included, final."""

import random
import statistics
import threading
import time

from bench.network.homes import Network
from engine.client import Client, NodeError
from engine.dev import dev_key

POLL_S = 0.01
PAUSE_S = 1.0
"""at most, between one that is final and the next"""
FINAL_MAX_S = 30
FIRST_ACCOUNT = 0
SECOND_ACCOUNT = 1
AMOUNT = 1


class Lone:
    """Sends one transfer, waits until it is final, pauses for a random while, and again."""

    def __init__(self, network: Network, seed: int) -> None:
        """Prepare; it asks the first executor."""
        self._url = network.places[0].query_url
        self._rng = random.Random(seed)
        self._took_ms: list[int] = []
        self._failures: list[str] = []
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lone", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Let the one that is on its way be the last."""
        self._is_over.set()
        self._thread.join(FINAL_MAX_S)

    def figures(self) -> dict[str, int] | None:
        """Return milliseconds from sending to finality; None where nothing was final."""
        if not self._took_ms:
            return None
        return {
            "count": len(self._took_ms),
            "failures": len(self._failures),
            "median_ms": round(statistics.median(self._took_ms)),
            "min_ms": min(self._took_ms),
            "max_ms": max(self._took_ms),
        }

    def _run(self) -> None:
        pair, recipient = dev_key(FIRST_ACCOUNT), dev_key(SECOND_ACCOUNT).public_key
        with Client(self._url) as client:
            while not self._is_over.wait(PAUSE_S * self._rng.random()):
                try:
                    record = client.transfer(pair, recipient, AMOUNT)
                    begin_ns = time.monotonic_ns()
                    name = client.send(record).hash
                    while client.transaction(name).state != "finalized":
                        if time.monotonic_ns() - begin_ns > FINAL_MAX_S * 1_000_000_000:
                            raise NodeError(
                                "lone.not_final",
                                what="a lone transaction is not final",
                                where=self._url,
                                why=f"{FINAL_MAX_S} s have passed",
                                what_to_do="look at the validators' logs",
                            )
                        time.sleep(POLL_S)
                    self._took_ms.append((time.monotonic_ns() - begin_ns) // 1_000_000)
                except NodeError as error:
                    self._failures.append(str(error))
