"""Emulators of object storage, in threads of the tests; each has one bucket, `bucket`."""

import contextlib
import logging
import socketserver
from collections.abc import Iterator

import pytest

# variables that clients read; those of accounts are made up
_VARIABLES = {
    "s3": {
        "AWS_ACCESS_KEY_ID": "any",
        "AWS_SECRET_ACCESS_KEY": "any",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    },
    "gs": {"GCE_METADATA_ROOT": "127.0.0.1:1", "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false"},  # no gRPC
}


@contextlib.contextmanager
def running(scheme: str) -> Iterator[str]:
    """Start the emulator of `s3` or `gs`, point all clients to it, and yield the address of its bucket."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in _VARIABLES[scheme].items():
            patch.setenv(name, value)
        # they send headers and content apart; the content would wait 40 ms until the headers are acknowledged
        patch.setattr(socketserver.StreamRequestHandler, "disable_nagle_algorithm", True)
        with {"s3": _s3, "gs": _gs}[scheme](patch):
            yield f"{scheme}://bucket"


@contextlib.contextmanager
def _s3(patch: pytest.MonkeyPatch) -> Iterator[None]:
    pytest.importorskip("s3fs")
    server_module = pytest.importorskip("moto.server")
    import botocore.session

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.get_host_and_port()[1]}")
    botocore.session.get_session().create_client("s3").create_bucket(Bucket="bucket")
    try:
        yield
    finally:
        server.stop()


@contextlib.contextmanager
def _gs(patch: pytest.MonkeyPatch) -> Iterator[None]:
    pytest.importorskip("gcsfs")
    server_module = pytest.importorskip("gcp_storage_emulator.server")
    logging.getLogger("gcp_storage_emulator").setLevel(logging.CRITICAL)
    patch.setattr(socketserver.BaseServer, "handle_error", lambda *_: None)  # clients that hang up
    _send_generations(patch)
    server = server_module.create_server("127.0.0.1", 0, in_memory=True, default_bucket="bucket")
    server.start()
    patch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{server._api._httpd.server_address[1]}")
    try:
        yield
    finally:
        server.stop()


def _send_generations(patch: pytest.MonkeyPatch) -> None:
    """Add the generation to downloads, as the store does; tensorstore uses it to read an object again."""
    from gcp_storage_emulator.exceptions import NotFound
    from gcp_storage_emulator.handlers import objects

    download = objects.download

    def with_generation(request, response, storage, *args, **kwargs):
        with contextlib.suppress(NotFound):
            found = storage.get_file_obj(request.params["bucket_name"], request.params["object_id"])
            response["x-goog-generation"] = found["generation"]
        download(request, response, storage, *args, **kwargs)

    patch.setattr(objects, "download", with_generation)
