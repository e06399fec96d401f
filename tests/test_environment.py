"""What commands inherit from the shell: standard streams, limits, settings of JAX, environment variables."""

import os
import re
import sys

import pytest
from commands import ROOT, assert_error, quick_command

from anchor_jax.cli.console import guarded_streams
from anchor_jax.cli.usage import COMMANDS

ENDED_PIPE, FULL = "a pipe that nobody reads", "/dev/full"


@pytest.mark.parametrize("flush", [True, False])
@pytest.mark.parametrize(("unwritable", "status"), [(ENDED_PIPE, 141), (FULL, 1)])
def test_unwritable_output_ends_without_a_traceback(unwritable, status, flush, monkeypatch, capsys):
    reader, descriptor = os.pipe() if unwritable == ENDED_PIPE else (os.dup(0), os.open(FULL, os.O_WRONLY))
    os.close(reader)
    with os.fdopen(descriptor, "w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        with pytest.raises(SystemExit) as ended, guarded_streams():
            print("a line", flush=flush)
    assert ended.value.code == status
    message = "error: cannot write to standard output (No space left on device)\n"
    assert capsys.readouterr().err == ("" if unwritable == ENDED_PIPE else message)


def test_closed_output_is_replaced_by_the_null_device(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    with guarded_streams():
        print("a line")
    sys.stdout.close()


def test_output_in_ascii_escapes_other_letters(tmp_path, monkeypatch):
    with (tmp_path / "out").open("w", encoding="ascii") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        with guarded_streams():
            print("straße ↑")
    assert (tmp_path / "out").read_text() == "stra\\xdfe \\u2191\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_help_needs_no_docstrings(name):
    """They are missing under `python -OO`, which takes too long to run here."""
    assert "__doc__" not in (ROOT / f"anchor_jax/cli/{name.replace('-', '_')}.py").read_text()


@pytest.mark.parametrize(
    ("work", "message"),
    [
        ("jax.config.update('jax_platforms', 'none'), jax.devices()", "'none'.*; check JAX_PLATFORMS and the driver"),
        ("os.open('/dev/null', os.O_RDONLY), main()", r"Too many open files: '/dev/null'; raise the limit"),
        ("os.stat(300 * 'a')", "File name too long: 'a+'; give another path"),
        ("raise OSError(errno.ESTALE, 'Stale file handle')", "Stale file handle; check the disk"),
        ("raise OSError(errno.ENOTCONN, 'No endpoint', '/mnt/a')", "No endpoint: '/mnt/a'; check the disk"),
    ],
)
def test_run_names_what_the_machine_lacks(work, message, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import errno, os, resource, jax\nfrom anchor_jax.cli import app\n"
        f"def main(): {work}\n"
        "def limited():\n    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))\n    main()\n"
        "app.run(limited)\n"
    )
    done = quick_command(script)
    assert_error(done, 1, "error: ")
    assert re.search(message, done.stderr), done.stderr


def test_run_prints_the_log_lines_of_the_package(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import numpy as np\nfrom anchor_jax import data\nfrom anchor_jax.cli import app\n"
        "def main():\n"
        "    data.Preprocessing(4, 4, 1)(np.zeros((2, 4, 4, 1), np.uint16))\n"
        "app.run(main)\n"
    )
    done = quick_command(script)
    assert done.returncode == 0, done.stderr
    line = (
        "warning: images with 16 bits per channel are read by their upper 8 bits; scale those that use fewer than 16\n"
    )
    assert done.stderr.endswith(line)
    assert done.stderr.count("16 bits") == 1


def test_variables_that_the_package_reads_are_documented():
    page = (ROOT / "docs/reliability.md").read_text()
    files = [file for file in (ROOT / "anchor_jax").rglob("*.py") if "os.environ" in file.read_text()]
    names = {name for file in files for name in re.findall(r'"([A-Z0-9]+_[A-Z0-9_]+)"', file.read_text())}
    assert {"ANCHOR_JAX_CACHE", "SLURM_NTASKS"} <= names
    assert not {name for name in names if f"`{name}`" not in page}
