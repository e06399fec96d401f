"""Models on the Hugging Face Hub: upload a folder, download one, and errors in one line."""

# huggingface_hub has partly unknown types
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

import contextlib
import importlib
import os
import re
from collections.abc import Generator
from pathlib import Path
from typing import Any, NamedTuple

from anchor_jax.core.errors import UserError
from anchor_jax.runs.published import FILES

_ADDRESS = re.compile(r"hf:/{1,2}", re.IGNORECASE)  # `Path` makes one slash of two
_NAME = r"[\w-][\w.-]*/[\w.-]+"


class Address(NamedTuple):
    """A model on the Hub: "ORG/NAME", and a branch, tag or commit; None for the default branch."""

    name: str
    revision: str | None


def is_address(path: Any) -> bool:
    """Return whether a path is an address of the Hub, hf://ORG/NAME."""
    return isinstance(path, str | os.PathLike) and bool(_ADDRESS.match(os.fspath(path)))


def parse(address: str | os.PathLike[str]) -> Address:
    """Return the parts of hf://ORG/NAME or hf://ORG/NAME@REVISION.

    >>> parse("hf://me/digits@v1")
    Address(name='me/digits', revision='v1')

    Raises:
      UserError: the address has another form.
    """
    match = re.fullmatch(rf"hf:/{{1,2}}({_NAME})(?:@(\S+))?", os.fspath(address), re.IGNORECASE)
    if not match:
        raise UserError(f"a model on the Hub is hf://ORG/NAME or hf://ORG/NAME@REVISION; got '{address}'")
    return Address(*match.groups())


def check_name(name: str) -> None:
    """Raise a `UserError` unless a name has the form ORG/NAME."""
    if not re.fullmatch(_NAME, name):
        raise UserError(f"the name of a model on the Hub is ORG/NAME; got '{name}'")


def download(address: Address) -> Path:
    """Download the files of a published run, or find them in the cache of huggingface_hub; return their folder.

    Raises:
      UserError: huggingface_hub is not installed, there is no such model or revision, or no network.
    """
    hub = import_hub()
    with _one_line_errors("read", address.name, address.revision):
        return Path(hub.snapshot_download(address.name, revision=address.revision, allow_patterns=[*FILES]))


def upload(folder: Path, name: str, *, private: bool, message: str) -> str:
    """Upload the files of a folder as one commit, to a new model or to one that exists; return the commit's address.

    Raises:
      UserError: huggingface_hub is not installed, there is no token, it does not allow this, or no network.
    """
    hub = import_hub()
    if not hub.get_token():
        raise UserError("no token for the Hub; run hf auth login, or set HF_TOKEN to one that may write")
    api = hub.HfApi(library_name="anchor_jax")
    with _one_line_errors("write to", name):
        api.create_repo(name, private=private, exist_ok=True)
        return api.upload_folder(repo_id=name, folder_path=folder, commit_message=message).commit_url


def import_hub() -> Any:
    """Return the module `huggingface_hub`.

    Raises:
      UserError: it is not installed.
    """
    try:
        return importlib.import_module("huggingface_hub")
    except ImportError as error:
        raise UserError("the Hub needs huggingface_hub; run pip install 'anchor-jax[hub]'") from error


@contextlib.contextmanager
def _one_line_errors(action: str, name: str, revision: str | None = None) -> Generator[None]:
    errors, constants = (importlib.import_module(f"huggingface_hub.{module}") for module in ("errors", "constants"))
    endpoint: str = constants.ENDPOINT
    try:
        yield
    except errors.RevisionNotFoundError as error:
        raise UserError(f"'{name}' on {endpoint} has no branch, tag or commit '{revision}'") from error
    except errors.GatedRepoError as error:
        raise UserError(
            f"'{name}' is gated: ask for access on {endpoint}/{name}, and log in by hf auth login"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise UserError(
            f"no model '{name}' on {endpoint}, or no access to it; check the name and the token (hf auth whoami)"
        ) from error
    except Exception as error:  # HTTP clients raise many types, and so does the cache on disk
        status: Any = getattr(getattr(error, "response", None), "status_code", None)
        if status in (401, 403):
            raise UserError(f"the token may not {action} '{name}' on {endpoint}; check it by hf auth whoami") from error
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"cannot reach '{name}' on {endpoint} ({type(error).__name__}: {reason}); check the network, and "
            "HF_ENDPOINT and HF_HUB_OFFLINE if they are set"
        ) from error
