"""The Hugging Face hub, as far as a checkpoint needs it: list, read, download, resume."""

import hashlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import httpx2
from huggingface_hub import HfApi, constants, hf_hub_url
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.file_download import http_get
from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

from wildmerge import WildmergeError
from wildmerge.files import sha256_file

from ._source import Listing

T = TypeVar("T")

TIMEOUT = 30  # seconds without a byte
TRIES = 5  # of one request; those of one file go on where the last one stopped
PAUSE = 2.0  # seconds before the second try, doubled for every further one


class Transient(WildmergeError):
    """A failure that may be gone when the same is tried again."""


def endpoint() -> str:
    """The hub's address, from the environment's HF_ENDPOINT where it is set."""
    return os.environ.get("HF_ENDPOINT", constants.ENDPOINT).rstrip("/")


def _token() -> str | bool:
    # Only from the environment: a job must not depend on a login that one machine happens to have.
    return os.environ.get("HF_TOKEN") or False


@contextmanager
def _explained(repo: str, revision: str | None, name: str | None = None) -> Iterator[None]:
    """Turn what the hub answers into a sentence that says what to do."""
    where = f"{repo}{f' at {revision}' if revision else ''}{f', file {name}' if name else ''}"
    try:
        yield
    except GatedRepoError as error:
        raise WildmergeError(
            f"Access to {where} was expected, but it is gated and the hub refused. Accept its "
            f"terms at {endpoint()}/{repo} while logged in, put a read token of that account into "
            "the environment variable HF_TOKEN, and run again."
        ) from error
    except RevisionNotFoundError as error:
        raise WildmergeError(
            f"The commit of {where} was expected on the hub, but the repository has no such "
            "revision (its history may have been rewritten). Empty the cell `revision` in "
            "config/models.tsv, delete its entry in config/models.lock.json and run `make lock`."
        ) from error
    except EntryNotFoundError as error:
        raise WildmergeError(
            f"The file was expected on the hub, but it is not there: {where}. Run `make lock` to "
            "record the files anew, or choose another checkpoint."
        ) from error
    except RepositoryNotFoundError as error:
        raise WildmergeError(
            f"The repository {where} was expected on the hub, but it does not exist (any more), "
            "or it is private and HF_TOKEN gives no access to it. Check its name in "
            "config/models.tsv, or choose another checkpoint."
        ) from error
    except OfflineModeIsEnabled as error:
        raise WildmergeError(
            f"{where} must be fetched from the hub, but HF_HUB_OFFLINE is set. Unset it for "
            "downloads, or put the checkpoint here by other means and name it `dir:path`."
        ) from error
    except HfHubHTTPError as error:
        status = error.response.status_code
        if status in (401, 403):
            raise WildmergeError(
                f"Access to {where} was expected, but the hub refused with status {status}. The "
                "token in HF_TOKEN is wrong or gives no access; use one that does."
            ) from error
        if status < 500 and status not in (408, 429):
            raise WildmergeError(
                f"The hub was expected to give {where}, but it refused with status {status}. "
                "Choose another checkpoint."
            ) from error
        raise Transient(
            f"The hub was expected to give {where}, but it answered with status {status}. Run "
            "again later: what has arrived is kept and continued."
        ) from error
    except httpx2.TransportError as error:
        raise Transient(
            f"The hub at {endpoint()} was expected to give {where}, but the connection failed "
            f"({type(error).__name__}: {error}). Check the network and run again: what has arrived "
            "is kept and continued."
        ) from error
    except OSError as error:
        if error.errno:  # of this machine: a full disk, no permission
            raise WildmergeError(
                f"Room for {where} was expected on the disk, but it cannot be written: {error}. "
                "Correct that and run again: what has arrived is kept and continued."
            ) from error
        raise Transient(
            f"The hub was expected to give {where} whole, but its answer ended early ({error}). "
            "Run again: what has arrived is kept and continued."
        ) from error


def _patiently(ask: Callable[[], T], repo: str, revision: str | None, name: str | None = None) -> T:
    """Return ask(); what may be gone the next time is tried again, with growing pauses."""
    attempt = 1
    while True:
        try:
            with _explained(repo, revision, name):
                return ask()
        except Transient:
            if attempt == TRIES:
                raise
        time.sleep(PAUSE * 2 ** (attempt - 1))
        attempt += 1


def list_files(repo: str, revision: str | None = None) -> Listing:
    """List a repository at a commit, or at the head of its main branch.

    Returns:
        The listing at the commit, 40 hexadecimal digits. A file's digest is the sha256 of a large
        one and the git blob's sha1 of a small one.

    Raises:
        WildmergeError: it is gone, private, or has no such commit.
    """
    api = HfApi(endpoint=endpoint(), token=_token())
    info = _patiently(
        lambda: api.model_info(repo, revision=revision, files_metadata=True, timeout=TIMEOUT),
        repo,
        revision,
    )
    # `files_metadata` fills the sizes and digests, which have no value by default.
    files: dict[str, tuple[int, str]] = {
        file.rfilename: (file.size or 0, (file.lfs.sha256 if file.lfs else file.blob_id) or "")
        for file in info.siblings or []
    }
    # A card may name several, or a name of its own for "other".
    card: Any = info.card_data or {}
    names = card.get("license_name") or card.get("license") or ""
    commit = info.sha or ""
    return Listing(
        repo=info.id,
        revision=commit,
        files=files,
        read=partial(read, info.id, commit),
        license=", ".join([names] if isinstance(names, str) else names),
        notes=[] if info.id == repo else [f"it is called {info.id} now"],
    )


def _url(repo: str, revision: str, name: str) -> str:
    return hf_hub_url(repo, name, revision=revision, endpoint=endpoint())


def read(repo: str, revision: str, name: str, first: int = 0, last: int | None = None) -> bytes:
    """Read a small file, or the bytes [first, last) of a large one."""
    headers = build_hf_headers(token=_token())
    if last is not None:
        headers["Range"] = f"bytes={first}-{last - 1}"

    def ask() -> bytes:
        url = _url(repo, revision, name)
        answer = get_session().get(url, headers=headers, timeout=TIMEOUT)
        hf_raise_for_status(answer)
        # A server may ignore the range and send everything.
        return answer.content[first:last] if answer.status_code == 200 else answer.content

    return _patiently(ask, repo, revision, name)


def _digest(path: Path, like: str) -> str:
    """The digest of a file in the kind of `like`: sha256, or a git blob's sha1."""
    if len(like) == 64:
        return sha256_file(path)
    blob = hashlib.sha1(b"blob %d\0" % path.stat().st_size)
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            blob.update(block)
    return blob.hexdigest()


def download(repo: str, revision: str, name: str, size: int, digest: str, path: Path) -> None:
    """Download one file to `path`, unless it is there already, and check its bytes.

    What a failed or killed try has got lies beside `path` and is continued. (The hub's own client
    throws it away.) Transport errors and the server's own (5xx) are tried again, up to `TRIES`
    times with growing pauses.

    Args:
        repo: `owner/name`.
        revision: its commit.
        name: the file's path in it.
        size: bytes of the file.
        digest: as `list_files` gives it.
        path: where to put it.

    Raises:
        WildmergeError: the file does not come, or its bytes are not the expected ones.
    """
    if path.exists() and path.stat().st_size == size and _digest(path, digest) == digest:
        return
    # Named by the digest, so that another revision's bytes are never taken for the start of this.
    part = path.with_name(f"{path.name}.{digest[:8]}.part")

    def go_on() -> None:
        with open(part, "ab", buffering=0) as file:
            http_get(
                _url(repo, revision, name),
                file,
                resume_size=file.tell(),
                headers=build_hf_headers(token=_token()),
                expected_size=size,
                displayed_filename=name,
            )

    _patiently(go_on, repo, revision, name)
    if (found := _digest(part, digest)) != digest:
        part.unlink()
        raise WildmergeError(
            f"{repo} at {revision}, file {name}: bytes with the digest {digest} were expected, "
            f"found {found}. The file was damaged on its way and has been deleted; run again. If "
            "it happens twice, the hub or a proxy serves other bytes than were locked."
        )
    os.replace(part, path)
