"""The Hugging Face hub, as far as a checkpoint or a data set needs it.

Nothing that a server says is believed: answers are cut at the bytes that were asked for, files are
checked by their digests, and names by `wildmerge.files.check_name` before a path is made of them.
"""

import hashlib
import importlib.util
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar
from urllib.parse import urlsplit

import httpx2
from huggingface_hub import (
    constants,
    get_hf_file_metadata,
    get_session,
    hf_hub_download,
    hf_hub_url,
    hf_raise_for_status,
)
from huggingface_hub.errors import (
    DisabledRepoError,
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import build_hf_headers, validate_repo_id
from tqdm import tqdm

from wildmerge import WildmergeError
from wildmerge.files import check_name, sha256_file

from ._source import Listing, is_whole

T = TypeVar("T")
Kind = Literal["model", "dataset"]

TIMEOUT = 30  # seconds without a byte
TRIES = 5  # of one request; those of one file go on where the last one stopped
PAUSE = 2.0  # seconds before the second try, doubled for every further one
LONGEST_PAUSE = 300.0  # seconds, whatever a server asks for; the hub counts requests in 5 minutes
LARGEST_READ = 50_000_000  # bytes that are read into memory; tokenizers have some 30 MB
LARGEST_ANSWER = 20_000_000  # bytes of the API's answer; a file takes some 200 of them
XET_FROM = 50_000_000  # bytes from which a parallel transfer is worth the request before it

_DIGEST = re.compile("[0-9a-f]{40}|[0-9a-f]{64}")


# Redirected in a circle or nowhere, no JSON, or JSON of another form.
_UNREADABLE = (
    httpx2.RequestError,
    httpx2.InvalidURL,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    RecursionError,
)


class Transient(WildmergeError):
    """A failure that may be gone when the same is tried again.

    Attributes:
        after: seconds that the server wants to be left alone; 0 where it said nothing.
    """

    may_pass = True
    after: float = 0.0


class _WrongAnswer(Exception):
    """An answer that is not the file, in words."""


def endpoint() -> str:
    """The hub's address, from the environment's HF_ENDPOINT where it is set."""
    return os.environ.get("HF_ENDPOINT", constants.ENDPOINT).rstrip("/")


def _shown(repo: str, kind: Kind) -> str:
    """A repository's path on the hub's site, which is what messages call it."""
    return f"datasets/{repo}" if kind == "dataset" else repo


def _token() -> str | bool:
    # Only from the environment: a job must not depend on a login that one machine happens to have.
    token = os.environ.get("HF_TOKEN", "").strip()
    if not re.fullmatch("[!-~]*", token):
        # What it holds is not repeated: messages are logged.
        raise WildmergeError(
            "A token of the hub was expected in the environment variable HF_TOKEN, in letters, "
            "digits and signs without a space, found others in it, such as a space or the end of "
            "a line. Set it to the token alone."
        )
    return token or False


def _seconds_to_wait(response: httpx2.Response) -> float:
    """The pause that a server asks for, by `Retry-After` or the hub's `RateLimit`, in seconds."""
    if re.fullmatch(r"\d{1,9}", given := response.headers.get("Retry-After", "").strip()):
        return min(float(given), LONGEST_PAUSE)
    if limit := re.search(r"\bt=(\d{1,9})", response.headers.get("RateLimit", "")):
        return min(float(limit[1]), LONGEST_PAUSE)
    return 0.0


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
    except DisabledRepoError as error:
        raise WildmergeError(
            f"Access to {where} was expected, but the repository is disabled: the hub or its owner "
            "has closed it to everybody. Choose another in its place."
        ) from error
    except RevisionNotFoundError as error:
        raise WildmergeError(
            f"The commit of {where} was expected on the hub, but the repository has no such "
            "revision (its history may have been rewritten). Delete its entry in the lock below "
            "config/, empty its cell `revision` where a sheet has one, and run `make lock`."
        ) from error
    except EntryNotFoundError as error:
        raise WildmergeError(
            f"The file was expected on the hub, but it is not there: {where}. Run `make lock` to "
            "record the files anew, or choose another."
        ) from error
    except RepositoryNotFoundError as error:
        raise WildmergeError(
            f"The repository {where} was expected on the hub, but it does not exist (any more), "
            "or it is private and HF_TOKEN gives no access to it. Check its name in the sheet that "
            "names it, or choose another."
        ) from error
    except OfflineModeIsEnabled as error:
        raise WildmergeError(
            f"{where} must be fetched from the hub, but HF_HUB_OFFLINE is set. Unset it for "
            "downloads, or put the checkpoint here by other means and name it `dir:path`."
        ) from error
    except HfHubHTTPError as error:
        raise _refusal(error, where) from error
    except httpx2.TransportError as error:
        raise Transient(
            f"The hub at {endpoint()} was expected to give {where}, but the connection failed "
            f"({type(error).__name__}: {error}). Check the network and run again: what has arrived "
            "is kept and continued."
        ) from error
    except _WrongAnswer as error:
        raise WildmergeError(
            f"The hub at {endpoint()} was expected to give {where}, but {error}. A proxy or a "
            "login page may stand between: check HF_ENDPOINT and the network, and run again."
        ) from error
    except HFValidationError as error:
        raise WildmergeError(
            f"A repository's name was expected, found {where}, and the hub has none of that form: "
            f"{' '.join(str(error).split())} Correct the sheet that names it."
        ) from error
    except (
        httpx2.RequestError,
        httpx2.InvalidURL,
        ValueError,
        TypeError,
        LookupError,
        RecursionError,
    ) as error:
        # Redirected in a circle, no JSON, or JSON of another form.
        raise WildmergeError(
            f"The hub at {endpoint()} was expected to tell of {where} in its own form, but its "
            f"answer cannot be read ({type(error).__name__}: {str(error)[:200]}). A proxy or a "
            "login page may stand between: check HF_ENDPOINT and the network, and run again."
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


def _refusal(error: HfHubHTTPError, where: str) -> WildmergeError:
    """What a status without a name of its own means."""
    status, host = error.response.status_code, error.response.url.host
    if status in (401, 403) and host != urlsplit(endpoint()).hostname:
        # The token never came to that host: its address is signed, and the signature expires.
        return Transient(
            f"{where} was expected from {host}, where the hub keeps it, but that refused with "
            f"status {status}: the address that the hub had given may have expired. Run again: "
            "what has arrived is kept and continued."
        )
    if status in (401, 403):
        return WildmergeError(
            f"Access to {where} was expected, but the hub refused with status {status}. The "
            "token in HF_TOKEN is wrong or gives no access; use one that does."
        )
    if status < 500 and status not in (408, 429):
        return WildmergeError(
            f"The hub was expected to give {where}, but it refused with status {status}. "
            "Choose another."
        )
    later = Transient(
        f"The hub was expected to give {where}, but it answered with status {status}. Run "
        "again later: what has arrived is kept and continued."
    )
    later.after = _seconds_to_wait(error.response)
    return later


def _patiently(
    ask: Callable[[], T],
    repo: str,
    revision: str | None,
    name: str | None = None,
    progress: Callable[[], int] = lambda: 0,
) -> T:
    """Return ask(); what may be gone the next time is tried again, with growing pauses.

    The tries are counted anew whenever `progress()` has grown since the last one.
    """
    attempt, before = 1, progress()
    while True:
        try:
            with _explained(repo, revision, name):
                return ask()
        except Transient as error:
            if (now := progress()) > before:
                attempt, before = 1, now
            if attempt == TRIES:
                raise
            after = error.after
        time.sleep(after or PAUSE * 2 ** (attempt - 1))
        attempt += 1


def list_files(repo: str, revision: str | None = None, kind: Kind = "model") -> Listing:
    """List a repository at a commit, or at the head of its main branch.

    Returns:
        The listing at the commit, 40 hexadecimal digits. A file's digest is the sha256 of a large
        one and the git blob's sha1 of a small one.

    Raises:
        WildmergeError: it is gone, private, has no such commit, or the server tells no sizes.
    """
    shown = _shown(repo, kind)
    api = f"{endpoint()}/api/{kind}s/{repo}"

    def ask() -> tuple[dict[str, Any], dict[str, tuple[Any, Any]]]:
        validate_repo_id(repo)
        # By name even where it is the usual one: a mirror may know no other way.
        info, _ = _json(f"{api}/revision/{revision or 'main'}?blobs=true")
        siblings = info.get("siblings") or []
        files = {file["rfilename"]: _size_and_digest(file, "blobId", "sha256") for file in siblings}
        if not all(map(_is_known, files.values())):
            files = _tree(f"{api}/tree/{info['sha']}?recursive=true")
        return info, files

    info, files = _patiently(ask, shown, revision)
    name, commit = str(info.get("id") or repo), str(info.get("sha"))
    if not all(map(_is_known, files.values())) or not re.fullmatch("[0-9a-f]{40}", commit):
        raise _sizeless(shown)
    # A card may name several, or a name of its own for "other".
    card = info.get("cardData")
    card = card if isinstance(card, dict) else {}
    names = card.get("license_name") or card.get("license") or ""
    return Listing(
        repo=name,
        revision=commit,
        files=files,
        read=partial(read, name, commit, kind=kind),
        license=", ".join(map(str, names)) if isinstance(names, list) else str(names),
        gated=bool(info.get("gated")),
        notes=[] if name == repo else [f"it is called {name} now"],
    )


def _json(url: str) -> tuple[Any, str]:
    """What the hub's API says, and the address of the next page, or "".

    The hub's own client would take an answer of any length into memory.
    """
    headers = build_hf_headers(token=_token())
    with get_session().stream("GET", url, headers=headers, timeout=TIMEOUT) as answer:
        content = bytearray()
        for piece in answer.iter_bytes():
            content += piece
            if len(content) > LARGEST_ANSWER:
                raise _WrongAnswer(f"its answer is longer than {LARGEST_ANSWER / 1e6:.0f} MB")
        hf_raise_for_status(answer)
    return json.loads(content), answer.links.get("next", {}).get("url", "")


def _tree(page: str) -> dict[str, tuple[Any, Any]]:
    """The files again, asked for in another way: a mirror may tell sizes here alone."""
    files: dict[str, tuple[Any, Any]] = {}
    while page:
        if not page.startswith(f"{endpoint()}/"):  # the token goes nowhere else
            raise _WrongAnswer("its listing goes on at another address")
        try:
            found, page = _json(page)
        except HfHubHTTPError as error:
            if error.response.status_code in (404, 405, 501):
                return {"": (None, None)}
            raise
        before = len(files)
        for entry in found:
            if entry["type"] == "file":
                files[entry["path"]] = _size_and_digest(entry, "oid", "oid")
        if len(files) == before:
            break
    return files


def _size_and_digest(entry: dict[str, Any], small: str, large: str) -> tuple[Any, Any]:
    """A file's size and digest, by the keys of a small one's and of a large one's."""
    lfs = entry.get("lfs")
    return entry.get("size"), lfs.get(large) if lfs else entry.get(small)


def _is_known(file: tuple[Any, Any]) -> bool:
    """Whether a listing tells a file's size and digest."""
    size, digest = file
    return isinstance(size, int) and size >= 0 and bool(_DIGEST.fullmatch(str(digest)))


def _sizeless(repo: str) -> WildmergeError:
    return WildmergeError(
        f"The commit of {repo} and sizes and digests of its files were expected from the server at "
        f"{endpoint()}, but it does not tell them. Lock against the hub itself or another mirror: "
        "set HF_ENDPOINT, or unset it, and run `make lock` again."
    )


@contextmanager
def _opened(
    repo: str, revision: str, name: str, kind: Kind, headers: dict[str, str]
) -> Iterator[httpx2.Response]:
    """Ask for a file and give the answer before its body has come; a refusal is raised."""
    url = hf_hub_url(repo, name, revision=revision, repo_type=kind, endpoint=endpoint())
    # Unpacked bytes: what is counted is what was asked for.
    sent = {**build_hf_headers(token=_token()), "Accept-Encoding": "identity", **headers}
    with get_session().stream("GET", url, headers=sent, timeout=TIMEOUT) as answer:
        if answer.status_code >= 400:
            body = 0
            for piece in answer.iter_bytes():  # what is said of a refusal; closed after that
                body += len(piece)
                if body > 1 << 16:
                    break
        hf_raise_for_status(answer)
        if "text/html" in answer.headers.get("Content-Type", "") and not name.endswith(".html"):
            raise _WrongAnswer("its answer is a web page")
        yield answer


def read(
    repo: str,
    revision: str,
    name: str,
    first: int = 0,
    last: int | None = None,
    kind: Kind = "model",
) -> bytes:
    """Read a small file, or the bytes [first, last) of a large one, and no more than that.

    Raises:
        WildmergeError: it does not come, or it is larger than what is read into memory.
    """
    end = first + LARGEST_READ if last is None else last
    if end - first > LARGEST_READ:
        raise WildmergeError(
            f"{repo} at {revision}, file {name}: at most {LARGEST_READ / 1e6:.0f} MB were expected "
            f"to be read of it, found {(end - first) / 1e6:.0f} MB. Choose another checkpoint."
        )
    headers = {} if last is None else {"Range": f"bytes={first}-{last - 1}"}

    def ask() -> bytes:
        with _opened(repo, revision, name, kind, headers) as answer:
            # A server may ignore the range and send everything: it is left at the last byte.
            skipped = first if answer.status_code == 200 else 0
            if skipped > LARGEST_READ:
                raise _WrongAnswer("it sends whole files only, where a part was asked for")
            wanted = skipped + end - first
            content = bytearray()
            for piece in answer.iter_bytes():
                content += piece
                if len(content) >= wanted:
                    break
            return bytes(content[skipped:wanted])

    return _patiently(ask, _shown(repo, kind), revision, name)


def _digest(path: Path, like: str) -> str:
    """The digest of a file in the kind of `like`: sha256, or a git blob's sha1."""
    if len(like) == 64:
        return sha256_file(path)
    blob = hashlib.sha1(b"blob %d\0" % path.stat().st_size)
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            blob.update(block)
    return blob.hexdigest()


def download_files(
    repo: str,
    revision: str,
    files: Mapping[str, Sequence],
    folder: Path,
    kind: Kind = "model",
) -> None:
    """Download files into `folder`, the small ones first, and check their bytes.

    Args:
        repo: `owner/name`.
        revision: its commit.
        files: name -> (bytes, digest); the order is kept.
        folder: where to; what lies there of an earlier try is continued.
        kind: of the repository.

    Raises:
        WildmergeError: a name leads out of the folder, a size or digest is not known, there is no
            room, or a file does not come.
    """
    where = f"{_shown(repo, kind)} at {revision}"
    for name, file in files.items():
        check_name(name, where)
        if not is_whole(file):
            raise WildmergeError(
                f"Size and digest of {where}, file {name}, were expected in the lock below "
                f"config/, found {file!r}. Run `make lock`: it looks them up again."
            )
    folder.mkdir(parents=True, exist_ok=True)
    need = sum(size for size, _ in files.values())
    have = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    if (free := shutil.disk_usage(folder).free) < need - have:
        raise WildmergeError(
            f"{(need - have) / 1e9:.1f} GB were expected to be free for {where} at "
            f"{folder.parent}, but there are {free / 1e9:.1f} GB. Make room and run again."
        )
    for name, (size, digest) in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        download(repo, revision, name, size, digest, path, kind)


def download(
    repo: str,
    revision: str,
    name: str,
    size: int,
    digest: str,
    path: Path,
    kind: Kind = "model",
) -> None:
    """Download one file to `path`, unless it is there already, and check its bytes.

    A large file that the hub keeps in its xet store comes from there in parallel, all other files
    by HTTP, and those of xet too when it fails. What a failed or killed try by HTTP has got lies
    beside `path` and is continued. (The hub's own client throws it away.) Transport errors and the
    server's own (5xx) are tried again, up to `TRIES` times with growing pauses.

    Args:
        repo: `owner/name`.
        revision: its commit.
        name: the file's path in it.
        size: bytes of the file.
        digest: as `list_files` gives it.
        path: where to put it.
        kind: of the repository.

    Raises:
        WildmergeError: the file does not come, or its bytes are not the expected ones.
    """
    if path.exists() and path.stat().st_size == size and _digest(path, digest) == digest:
        return
    # Named by the digest, so that another revision's bytes are never taken for the start of this.
    part = path.with_name(f"{path.name}.{digest[:8]}.part")
    if part.exists() and part.stat().st_size > size:
        part.unlink()
    if part.exists() or not _by_xet(repo, revision, name, size, part, kind):
        _patiently(
            lambda: _go_on(repo, revision, name, size, part, kind),
            _shown(repo, kind),
            revision,
            name,
            progress=lambda: part.stat().st_size if part.exists() else 0,
        )
    if (found := _digest(part, digest)) != digest:
        part.unlink()
        raise WildmergeError(
            f"{repo} at {revision}, file {name}: bytes with the digest {digest} were expected, "
            f"found {found}. The file was damaged on its way and has been deleted; run again. If "
            "it happens twice, the hub or a proxy serves other bytes than were locked."
        )
    part.replace(path)


def _go_on(repo: str, revision: str, name: str, size: int, part: Path, kind: Kind) -> None:
    """Append to `part` what it lacks; it never becomes longer than the file."""
    with open(part, "ab", buffering=0) as file:
        start = file.tell()
        if start == size:
            return
        headers = {"Range": f"bytes={start}-"} if start else {}
        try:
            with _opened(repo, revision, name, kind, headers) as answer:
                span = answer.headers.get("Content-Range", "").replace(" ", "")
                if start and not (answer.status_code == 206 and span.startswith(f"bytes{start}-")):
                    start = file.truncate(0)  # all of it comes, or another part
                    if answer.status_code != 200:
                        raise OSError("another part of it came than was asked for")
                with _progress(name, size, start) as bar:
                    for piece in answer.iter_bytes(constants.DOWNLOAD_CHUNK_SIZE):
                        if start + len(piece) > size:
                            raise _WrongAnswer(f"more than its {size} bytes came")
                        start += file.write(piece)
                        bar.update(len(piece))
        except _WrongAnswer:
            part.unlink()
            raise
        except HfHubHTTPError as error:
            if error.response.status_code == 416:
                file.truncate(0)
                raise OSError("it has no byte from where the last try ended") from error
            raise
    if start != size:
        raise OSError(f"{start} of {size} bytes")


def _progress(name: str, size: int, start: int) -> tqdm:
    """A bar for a file that takes a while; small files come without."""
    return tqdm(
        total=size,
        initial=start,
        desc=name,
        unit="B",
        unit_scale=True,
        mininterval=5,
        disable=size < XET_FROM,
    )


def _by_xet(repo: str, revision: str, name: str, size: int, part: Path, kind: Kind) -> bool:
    """Bring a large file from the hub's xet store, in parallel; False where it does not come."""
    if size < XET_FROM or constants.HF_HUB_DISABLE_XET or not importlib.util.find_spec("hf_xet"):
        return False
    url = hf_hub_url(repo, name, revision=revision, repo_type=kind, endpoint=endpoint())
    folder = part.with_name(f".{part.name}.xet")
    shutil.rmtree(folder, ignore_errors=True)
    try:
        about = get_hf_file_metadata(url, token=_token(), timeout=TIMEOUT, endpoint=endpoint())
        if about.xet_file_data is None:
            return False
        came = hf_hub_download(
            repo,
            name,
            repo_type=kind,
            revision=revision,
            local_dir=folder,
            token=_token(),
            endpoint=endpoint(),
        )
        Path(came).replace(part)
        return part.stat().st_size == size
    except WildmergeError:
        raise
    except Exception as error:  # whatever it is: the way by HTTP has its sentences
        print(f"{repo}, file {name}: by HTTP, since xet failed: {error!r:.300}", file=sys.stderr)
        return False
    finally:
        shutil.rmtree(folder, ignore_errors=True)
