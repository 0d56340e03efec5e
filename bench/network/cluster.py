"""One network that runs: its processes, what happens to them, and an end that leaves nobody behind.

`Cluster` is used as a context: whatever happens inside, every process that it started is gone
afterwards. One thread calls it. `act` does one fault; `look` is called now and then and takes down
what processes use and what their journals say; `stop` ends all in peace.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Self

from bench.network.faults import Act, Faults, LinkState
from bench.network.homes import Network, NetworkError, insert_relays, set_setting
from bench.network.processes import REPOSITORY, Validator, surroundings
from bench.network.votes import VoteLedger
from bench.network.watch import Usage, Watch
from consensus.client import ClientError, read_bytes, read_page
from engine.client import Client, NodeError
from runtime.tied import tied_command

START_MAX_S = 120
"""the first start of a machine compiles kernels"""
POLL_S = 0.1
JOURNAL = "journal"
READY_MAX_S = 10


class Tool:
    """A helper process with pipes, ended when the cluster is."""

    def __init__(self, arguments: Sequence[str], log_path: Path, *, nice: int = 0) -> None:
        """Start `python ARGUMENTS`; its stderr goes to a file."""
        command = tied_command([sys.executable, *arguments])
        if nice:
            command = ["nice", "-n", str(nice), *command]
        with log_path.open("ab") as log:
            self.process = subprocess.Popen(
                command, cwd=REPOSITORY, env=surroundings(), stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True,
            )  # fmt: skip
        self.log_path = log_path

    @property
    def output(self) -> IO[str]:
        """What it writes."""
        assert self.process.stdout is not None
        return self.process.stdout

    def tell(self, values: object) -> None:
        """Write a line of JSON to it; one that has ended does not hear it."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(values) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError as error:
            raise NetworkError(
                "network.tool",
                what=f"a helper process has ended with {self.process.poll()}",
                where=str(self.log_path),
                why=self.log_path.read_text()[-2_000:],
                what_to_do="this is a defect of the network's tools",
            ) from error

    def end(self) -> None:
        """End it, by force if it is busy, and close its pipes."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None and not pipe.closed:
                try:
                    pipe.close()
                except BrokenPipeError:
                    continue  # what was not written is of no use to a process that has ended


class Cluster:
    """The processes of one network."""

    def __init__(
        self, network: Network, faults: Faults, *, seed: int, offsets_ms: dict[int, int]
    ) -> None:
        """Change the homes where faults ask for it; nothing runs yet."""
        self.network = network
        self.faults = faults
        self.validators = [Validator(place.number, place.home) for place in network.places]
        self.watch = Watch(network.places)
        self.usage = {place.number: Usage() for place in network.places}
        self.votes = VoteLedger()
        self.exit_codes: dict[int, int | None] = {}
        self.unexpected: list[str] = []
        """processes that ended by themselves"""
        self._tools: list[Tool] = []
        self._relay: Tool | None = None
        self._relay_file = None
        self._expected_down: set[int] = set()
        if faults.needs_relays:
            self._relay_file = insert_relays(network, faults.links_at_start, seed)
        for number, offset_ms in offsets_ms.items():
            path = network.places[number].home / "node.toml"
            set_setting(path, "clock_offset_ms", offset_ms)

    def __enter__(self) -> Self:
        """Return the cluster."""
        return self

    def __exit__(self, *_: object) -> None:
        """Leave no process behind."""
        self.watch.stop()
        for validator in self.validators:
            if validator.is_running:
                validator.kill()
            validator.end_family(after_s=0)
        for tool in self._tools:
            tool.end()

    def tool(self, arguments: Sequence[str], name: str, *, nice: int = 0) -> Tool:
        """Start a helper process that ends with the cluster at the latest."""
        made = Tool(arguments, self.network.folder / f"{name}.log", nice=nice)
        self._tools.append(made)
        return made

    def start(self, say: Callable[[str], None]) -> None:
        """Start everything and wait until all validators take part. Raises NetworkError."""
        if self._relay_file is not None:
            arguments = ("-m", "bench.network.relay", str(self._relay_file))
            self._relay = self.tool(arguments, "relay")
            if self._relay.output.readline() != "ready\n":
                raise _failed(self._relay.log_path, "the relay does not listen")
        for validator in self.validators:
            validator.start()
        self.watch.start()
        begin_s = time.monotonic()
        waiting = {place.number: place for place in self.network.places}
        while waiting:
            for number in list(waiting):
                validator = self.validators[number]
                if not validator.is_running:
                    raise _failed(
                        validator.log_path,
                        f"validator {number} ended with {validator.exit_code}",
                        validator.log_tail(),
                    )
                if self.is_ready(number):
                    del waiting[number]
            if time.monotonic() - begin_s > START_MAX_S:
                first = self.validators[min(waiting)]
                raise _failed(
                    first.log_path,
                    f"validator {first.number} does not take part after {START_MAX_S} s",
                    first.log_tail(),
                )
            time.sleep(POLL_S)
        say(f"{len(self.validators)} validators take part ({time.monotonic() - begin_s:.1f} s)")

    def is_ready(self, number: int) -> bool:
        """Say whether a validator takes part and its executor answers users.

        Raises NetworkError where somebody else's network answers at its ports.
        """
        place = self.network.places[number]
        try:
            read_bytes(f"http://{place.pages}", "/readyz")
            ours = read_page(f"http://{place.pages}", "/status")["genesis_hash"]
            with Client(place.query_url, timeout_s=READY_MAX_S) as client:
                chains = {ours, client.status().genesis_hash}
        except (ClientError, NodeError):
            return False
        if chains != {self.network.chain["genesis_hash"]}:
            raise NetworkError(
                "network.port",
                what=f"another network answers at the ports of validator {number}",
                where=f"{place.pages} and {place.query_url}",
                why="it was started at the same time with the same base port",
                what_to_do="choose another --base-port",
            )
        return True

    def act(self, act: Act) -> None:
        """Do one thing to the network."""
        if act.deed == "links":
            self.set_links(act.links)
            return
        validator = self.validators[act.validator]
        if act.deed == "kill":
            self.kill(act.validator)
        elif act.deed == "kill_executor":
            validator.kill_executor()
        elif act.deed == "pause":
            validator.pause()
        elif act.deed == "resume":
            validator.resume()
        elif act.deed == "restart":
            self.restart(act.validator)

    def set_links(self, links: LinkState) -> None:
        """Tell the relay what holds from now on."""
        assert self._relay is not None, "links are changed where there are relays"
        self._relay.tell(links.as_json())

    def kill(self, number: int) -> None:
        """Kill a consensus process; its executor goes with it. Read its journal."""
        validator = self.validators[number]
        self.usage[number].take(validator)
        self._expected_down.add(number)
        validator.kill()
        self.votes.add_journal(validator.home / JOURNAL, is_running=False)

    def restart(self, number: int) -> None:
        """Start a validator again; one that runs is ended in peace first."""
        validator = self.validators[number]
        if validator.is_running:
            self.usage[number].take(validator)
            validator.stop()
        self._expected_down.discard(number)
        validator.start()

    def look(self) -> None:
        """Take down what processes use, what journals say, and who ended by itself."""
        for validator in self.validators:
            number = validator.number
            self.usage[number].take(validator)
            self.votes.add_journal(validator.home / JOURNAL, is_running=validator.is_running)
            if not validator.is_running and number not in self._expected_down:
                self._expected_down.add(number)
                self.unexpected.append(
                    f"validator {number} ended by itself with {validator.exit_code}: "
                    f"{validator.log_tail()[-500:]}"
                )

    def read_evidence(self) -> None:
        """Take down what validators can prove against each other."""
        for place, validator in zip(self.network.places, self.validators, strict=True):
            if validator.is_running and not validator.is_paused:
                try:
                    page = read_page(f"http://{place.pages}", "/evidence")
                except ClientError:
                    continue  # it starts or stops just now; the others know the same
                self.votes.add_evidence(page["evidence"])

    def stop(self) -> None:
        """End all validators in peace, all at once, and note how each ended."""
        self.look()
        running = [item for item in self.validators if item.is_running]
        for validator in running:
            validator.resume()
            validator.ask_to_stop()
        for validator in running:
            self.exit_codes[validator.number] = validator.wait_stopped()
            self.votes.add_journal(validator.home / JOURNAL, is_running=False)


def _failed(log: Path, what: str, why: str = "") -> NetworkError:
    return NetworkError(
        "network.start",
        what=what,
        where=str(log),
        why=why or "its log says why",
        what_to_do="read the log; homes and logs are kept",
    )
