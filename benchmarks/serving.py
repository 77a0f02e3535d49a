"""What leaving early is worth behind an HTTP server: examples/serve.py, with and without.

    python benchmarks/serving.py --exported FOLDER --images FOLDER

FOLDER is what ``hdkd export RUN --to onnx`` wrote; the images are files. Two servers take turns,
one whose images leave early and one whose images all go to the last exit; the same clients, each
with one request under way at a time, send the same images to both. Then more clients come than the
server lets in. All of it on this machine; the server whose turn it is not is stopped meanwhile.
Writes benchmarks/results/serving.json.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from harness import options, ratios, show, spread, write_record

from hdkd_cli.inference.exported_network import Network

SERVER = Path(__file__).resolve().parents[1] / "examples" / "serve.py"
HOST, START_SECONDS, REQUEST_SECONDS = "127.0.0.1", 120, 60


class Answer(NamedTuple):
    """What came back to one request."""

    number: int
    image: int
    """Its place among the images."""
    status: int
    """Of HTTP; 0: the connection broke."""
    seconds: float
    said: dict[str, Any]


class Server(NamedTuple):
    """A server that runs, in a session of its own."""

    port: int
    session: int

    def signal(self, number: signal.Signals) -> None:
        """To all its processes."""
        os.killpg(self.session, number)

    def processes(self) -> dict[int, float]:
        """Its processes, and the seconds of the processor that each has used so far (Linux)."""
        found = {}
        for path in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):  # it has just ended
                fields = path.read_text().rpartition(")")[2].split()
                if int(fields[3]) == self.session and fields[0] != "Z":
                    ticks = int(fields[11]) + int(fields[12])
                    found[int(path.parent.name)] = ticks / os.sysconf("SC_CLK_TCK")
        return found

    def cpu_seconds(self) -> float:
        """What they have used together."""
        return sum(self.processes().values())


@contextmanager
def serving(folder: Path, *arguments: str) -> Iterator[Server]:
    """A server for as long as it is needed.

    Raises:
        RuntimeError: it does not start.
    """
    with socket.socket() as free:
        free.bind((HOST, 0))
        port = free.getsockname()[1]
    command = [sys.executable, str(SERVER), str(folder), "--port", str(port), *arguments]
    with subprocess.Popen(command, stdout=sys.stderr, start_new_session=True) as process:
        try:
            _await(process, port)
            yield Server(port, process.pid)
        finally:
            os.killpg(process.pid, signal.SIGCONT)
            time.sleep(0.5)  # what comes with SIGCONT may reach another thread than the main one
            process.terminate()
            try:
                process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)


def _await(process: subprocess.Popen[bytes], port: int) -> None:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until and process.poll() is None:
        connection = HTTPConnection(HOST, port, timeout=5)
        try:
            connection.request("GET", "/health")
            if connection.getresponse().status == 200:
                return
        except OSError:
            pass
        finally:
            connection.close()
        time.sleep(0.2)
    raise RuntimeError(f"the server did not start within {START_SECONDS} s")


def load(
    port: int, images: Sequence[bytes], *, clients: int, requests: int, first: int = 0
) -> list[Answer]:
    """Send ``requests`` images, in turn from the ``first`` on, from ``clients`` threads.

    A refused request (503) is an answer, and is not sent again.
    """
    numbers = itertools.count()
    answers: list[Answer] = []

    def client() -> None:
        with closing(HTTPConnection(HOST, port, timeout=REQUEST_SECONDS)) as connection:
            while (number := next(numbers)) < requests:
                image = (first + number) % len(images)
                began = time.perf_counter()
                try:
                    connection.request("POST", "/predict", *_form(images[image]))
                    response = connection.getresponse()
                    status, said = response.status, json.loads(response.read())
                except OSError:
                    status, said = 0, {}
                if status != 200:
                    connection.close()  # it opens again by itself
                answers.append(Answer(number, image, status, time.perf_counter() - began, said))

    threads = [threading.Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def _form(content: bytes) -> tuple[bytes, dict[str, str]]:
    """An image as the body and the headers of a form."""
    edge = b"--edge-of-a-part"
    head = b'Content-Disposition: form-data; name="image"; filename="image"\r\n\r\n'
    body = b"\r\n".join([edge, head + content, edge + b"--", b""])
    return body, {"Content-Type": f"multipart/form-data; boundary={edge[2:].decode()}"}


def without_exits(folder: Path, target: Path) -> Path:
    """A copy of an export by whose policy nothing leaves early."""
    shutil.copytree(folder, target)
    policy = json.loads((target / "policy.json").read_text())
    point = policy["points"][0]
    point["thresholds"] = [None] * len(point["thresholds"])
    (target / "policy.json").write_text(json.dumps(policy))
    return target


def same(network: Network, files: Sequence[Path], answers: Sequence[Answer]) -> int:
    """How many answers are what the network says to an image alone: class and exit."""
    left = [network.classify(network.prepare(file)[None]) for file in files]
    wanted = [(int(one.label_B[0]), int(one.exit_B[0]) + 1) for one in left]
    return sum((one.said["label"], one.said["exit"]) == wanted[one.image] for one in answers)


class Block(NamedTuple):
    """Some requests that one server answered."""

    answers: list[Answer]
    seconds: float
    cpu_seconds: float


def measured(
    server: Server, images: Sequence[bytes], *, clients: int, requests: int, first: int
) -> Block:
    """Let a server run for as long as ``requests`` take."""
    server.signal(signal.SIGCONT)
    used, began = server.cpu_seconds(), time.perf_counter()
    answers = load(server.port, images, clients=clients, requests=requests, first=first)
    seconds, used = time.perf_counter() - began, server.cpu_seconds() - used
    server.signal(signal.SIGSTOP)
    return Block(answers, seconds, used)


def summed_up(blocks: Sequence[Block]) -> dict[str, Any]:
    """Throughput of each block, waiting time and work of all."""
    done = [one for block in blocks for one in block.answers if one.status == 200]
    p50, p99 = np.percentile([1000 * one.seconds for one in done], (50, 99))
    return {
        "images_per_s": spread([len(block.answers) / block.seconds for block in blocks]),
        "p50_ms": float(p50),
        "p99_ms": float(p99),
        "server_cpu_ms": 1000 * sum(block.cpu_seconds for block in blocks) / len(done),
    }


def take_turns(
    arms: Mapping[str, Path], images: Sequence[bytes], given: argparse.Namespace
) -> dict[tuple[str, int], list[Block]]:
    """Blocks of each arm and number of clients: A B, A B, …"""
    blocks: dict[tuple[str, int], list[Block]] = {}
    with ExitStack() as stack:
        servers = {}
        for name, folder in arms.items():
            server = stack.enter_context(serving(folder, "--threads", str(given.threads)))
            measured(server, images, clients=8, requests=len(images), first=0)  # warm
            servers[name] = server
        for number in range(given.rounds):
            for clients in given.clients:
                for name, server in servers.items():
                    block = measured(
                        server,
                        images,
                        clients=clients,
                        requests=given.requests,
                        first=number * given.requests,
                    )
                    blocks.setdefault((name, clients), []).append(block)
    return blocks


def main() -> None:
    """Measure and write the record."""
    given = options(
        __doc__ or "",
        exported=Path,
        images=Path,
        clients=[1, 8, 32],
        requests=100,
        rounds=10,
        threads=1,
    )
    files = sorted(path for path in given.images.rglob("*") if path.is_file())
    images = [file.read_bytes() for file in files]
    with tempfile.TemporaryDirectory() as temporary:
        full = without_exits(given.exported, Path(temporary) / "full")
        arms = {"early": given.exported, "full": full}
        networks = {name: Network(folder, given.threads) for name, folder in arms.items()}
        blocks = take_turns(arms, images, given)
        with serving(arms["early"], "--most-inside", "16") as server:
            rushed = load(server.port, images, clients=64, requests=5 * given.requests)
    rows = []
    for clients in given.clients:
        row: dict[str, Any] = {"clients": clients}
        row |= {name: summed_up(blocks[name, clients]) for name in arms}
        full_s, early_s = ([b.seconds for b in blocks[name, clients]] for name in ("full", "early"))
        row["early_over_full"] = ratios(full_s, early_s)
        rows.append(row)
        print(clients, "clients: early over full", show(row["early_over_full"]), row)
    answers = {
        name: [
            one for (arm, _), some in blocks.items() if arm == name for b in some for one in b[0]
        ]
        for name in arms
    }
    let_in = [one for one in rushed if one.status == 200]
    path = write_record(
        "serving",
        "images/s and waiting time behind LitServe, leaving early and in full, in turn",
        network=networks["early"].manifest["network"],
        share_of_full_macs=_share(networks["early"], files),
        images=len(files),
        requests=given.requests,
        rounds=given.rounds,
        processors=len(os.sched_getaffinity(0)),
        sent={name: len(some) for name, some in answers.items()},
        answered={name: sum(one.status == 200 for one in some) for name, some in answers.items()},
        agreeing={name: same(networks[name], files, some) for name, some in answers.items()},
        rows=rows,
        rush={
            "clients": 64,
            "most_inside": 16,
            "statuses": Counter(str(one.status) for one in rushed),
            "agreeing": same(networks["early"], files, let_in),
        },
    )
    print(path)


def _share(network: Network, files: Sequence[Path]) -> float:
    """Mean cost of these images as a share of the full network's."""
    macs = network.manifest["macs"]
    exits = network.classify(np.stack([network.prepare(file) for file in files])).exit_B
    return float(np.mean([macs[k] for k in exits])) / macs[-1]


if __name__ == "__main__":
    main()
