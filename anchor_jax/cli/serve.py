"""Serve an exported run over HTTP."""

from absl import flags

from anchor_jax.cli import app
from anchor_jax.cli.console import USAGE_STATUS, exit_with_error
from anchor_jax.core.errors import UserError
from anchor_jax.export.format import load_exported

HOST = flags.DEFINE_string("host", "127.0.0.1", "Address to listen on; 0.0.0.0 listens on all networks.")
PORT = flags.DEFINE_integer("port", 8000, "Port to listen on; 0 takes a free one.", lower_bound=0, upper_bound=65535)
BATCH_SIZES = flags.DEFINE_list("batch_sizes", ["1", "8", "32"], "Sizes to compile; the largest limits a request.")
WAIT = flags.DEFINE_float("wait", 3.0, "Milliseconds that a request waits for others.", lower_bound=0.0)
MAX_MEGAPIXELS = flags.DEFINE_float(
    "max_megapixels",
    100.0,
    "Maximum of the decoded pictures of a request, and of all that are decoded at once.",
    lower_bound=0.0,
)
MAX_MEGABYTES = flags.DEFINE_float("max_megabytes", 32.0, "Maximum size of a request.", lower_bound=0.0)

USAGE = app.Usage(
    description=f"{app.COMMANDS['serve']}\n"
    "POST /predict takes pictures, see /docs. GET /healthz, /readyz and /metrics are for monitoring.",
    synopsis="[flags] FILE",
    groups={"Address": (HOST, PORT), "Requests": (BATCH_SIZES, WAIT, MAX_MEGABYTES, MAX_MEGAPIXELS)},
    examples={
        "serve on port 8000": "c10.zip",
        "listen on all networks, never wait for a batch": "--host 0.0.0.0 --wait 0 c10.zip",
    },
)


def main(*arguments: str) -> None:
    """Serve the file until the process is stopped."""
    file = app.only_path(arguments, "an exported run")
    sizes = [app.integer("batch_sizes", size) for size in BATCH_SIZES.value]
    if not sizes or min(sizes) < 1:
        exit_with_error(USAGE_STATUS, f"--batch_sizes must be at least 1; got {','.join(BATCH_SIZES.value)}")
    try:
        import uvicorn

        from anchor_jax.serving.application import application
    except ImportError as error:
        raise UserError(f"{error}; install what the server needs: pip install 'anchor-jax[serve]'") from error
    classifier = load_exported(file)
    limits = round(MAX_MEGABYTES.value * 2**20), round(MAX_MEGAPIXELS.value * 1e6)
    served = application(classifier, sizes, WAIT.value / 1000, *limits)
    uvicorn.run(served, host=HOST.value, port=PORT.value)


def run() -> None:
    """Run the command line."""
    app.run(main, arguments=True, usage=USAGE)
