"""Find the devices of JAX in a process of its own: a TPU serves one process at a time, and JAX preallocates GPU memory.

python -m benchmarks.campaign.probe --json probe.json
"""

import jax

from anchor_jax.cli import app
from benchmarks.campaign.files import write_current
from benchmarks.environment import environment

JSON = app.define_path("json", None, "Result file.", what="a new file", required=True)


def main() -> None:
    """Write platform, kind and number of devices, and the environment."""
    device = jax.devices()[0]
    facts = {"platform": device.platform, "device_kind": device.device_kind, "devices": jax.device_count()}
    write_current(JSON.value, {**facts, "environment": environment()})


if __name__ == "__main__":
    app.run(main)
