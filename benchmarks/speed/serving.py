"""Load a server of an exported run: requests per second and latencies, for several numbers of clients.

    python -m benchmarks.speed.serving c10.zip --clients 1,8,32 --json serving.json

Starts `anchor-jax serve` in a process of its own. Each client keeps a connection open and sends one JPEG after another,
a photograph-sized picture of noise, so that decoding and resizing are part of what is timed. Clients are threads of one
process and share the cores with the server.
"""

import http.client
import io
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from absl import flags
from PIL import Image

from anchor_jax.cli import app
from anchor_jax.core.errors import UserError
from benchmarks.report import Result, report

JSON = app.define_path("json", None, "Result file.", what="a new file")
CLIENTS = flags.DEFINE_list("clients", ["1", "8", "32"], "Comma-separated numbers of clients.")
SECONDS = flags.DEFINE_float("seconds", 5.0, "Duration of a sample.", lower_bound=0.1)
SAMPLES = flags.DEFINE_integer("samples", 5, "Samples for each number of clients.", lower_bound=1)
SIZE = flags.DEFINE_list("size", ["300", "500"], "Height and width of the picture.")

HOST = "127.0.0.1"
HEADERS = {"content-type": "image/jpeg"}


def main(*arguments: str) -> None:
    """Time all numbers of clients in turn."""
    file = app.only_path(arguments, "an exported run")
    height, width = (app.integer("size", size) for size in SIZE.value)
    picture = noise_jpeg(height, width)
    numbers = [app.integer("clients", number) for number in CLIENTS.value]
    samples: dict[int, list[np.ndarray]] = {number: [] for number in numbers}
    with running_server(file) as port:
        load(port, picture, max(numbers), 1.0)  # threads and connections exist
        for _ in range(SAMPLES.value):
            for number in numbers:
                samples[number].append(load(port, picture, number, SECONDS.value))
    results = [result for number in numbers for result in results_of(number, samples[number])]
    report("serving", {"picture": f"{height}x{width} JPEG", "seconds": SECONDS.value}, results, JSON.value)


def results_of(number: int, latencies: list[np.ndarray]) -> list[Result]:
    """Return the throughput and percentiles of the latencies, given the seconds of all requests of each sample."""
    case = f"{number} clients"
    rates = [len(seconds) / SECONDS.value for seconds in latencies]
    percentiles = {
        f"latency_p{percent}": [float(np.percentile(seconds, percent)) for seconds in latencies]
        for percent in (50, 95, 99)
    }
    return [Result(case, "anchor_jax", "requests_per_second", "1/s", rates)] + [
        Result(case, "anchor_jax", metric, "s", values) for metric, values in percentiles.items()
    ]


def load(port: int, picture: bytes, num_clients: int, seconds: float) -> np.ndarray:
    """Send requests from all clients for some seconds; return the time that each request took."""
    end = time.perf_counter() + seconds
    with ThreadPoolExecutor(num_clients) as pool:
        clients = [pool.submit(_send_until, end, port, picture) for _ in range(num_clients)]
        return np.concatenate([client.result() for client in clients])


def _send_until(end: float, port: int, picture: bytes) -> list[float]:
    connection, latencies = http.client.HTTPConnection(HOST, port), []
    while (start := time.perf_counter()) < end or not latencies:
        connection.request("POST", "/predict", picture, HEADERS)
        response = connection.getresponse()
        content = response.read()
        if response.status != 200:
            raise UserError(f"the server answered {response.status}: {content.decode()}")
        latencies.append(time.perf_counter() - start)
    connection.close()
    return latencies


@contextmanager
def running_server(file: Path) -> Iterator[int]:
    """Start a server, wait until it is ready, and yield its port."""
    command = [sys.executable, "-m", "anchor_jax", "serve", "--port=0", str(file)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        try:
            port = _port_of(process)
            connection = http.client.HTTPConnection(HOST, port)
            connection.request("GET", "/readyz")
            while (response := connection.getresponse()).status != 200:
                if b"failed" in response.read():
                    raise UserError(f"the server cannot compile '{file}'")
                time.sleep(0.1)
                connection.request("GET", "/readyz")
            yield port
        finally:
            process.terminate()


def _port_of(process: subprocess.Popen[str]) -> int:
    """Return the port from the line that uvicorn prints; the other lines are those of an error."""
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        if "Uvicorn running on" in line:
            return int(line.split(f"{HOST}:")[1].split()[0])
    raise UserError("the server did not start: " + " ".join(lines).strip())


def noise_jpeg(height: int, width: int) -> bytes:
    """Return an image of random pixels as JPEG."""
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)).save(file, "jpeg")
    return file.getvalue()


if __name__ == "__main__":
    app.run(main, arguments=True)
