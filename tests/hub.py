"""A hub on this machine: a real HTTP server that speaks the Hugging Face hub's protocol.

It serves repositories from memory, with commits, sizes and digests, and the trouble that a
repository in the wild can give. Point the client at it by HF_ENDPOINT.
"""

import hashlib
import json
import re
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

LARGE = (".safetensors", ".bin", ".gguf", ".parquet")  # kept as LFS, so named by sha256
NAME = "([^/]+/[^/]+)"


@dataclass
class Repository:
    """One repository.

    files: path -> bytes. gated: only who brings the token `good` gets files. private: others see
    nothing at all. cut: path -> how often the transfer of that file breaks off half-way. busy: how
    often a file is answered by status 503. damaged: paths whose bytes change on their way. lost:
    paths that are listed but answered by status 404; lost_after_cut: those that were cut become
    so. stall: paths whose transfer stops half-way without an end. moved: the name that the
    repository has now. elsewhere: large files are fetched from another host, as from the hub's CDN.
    refuses: the status that answers every request for the repository. license: as its card says.
    sizeless: its listing leaves out sizes and digests, as mirrors do.
    """

    files: dict[str, bytes]
    gated: bool = False
    private: bool = False
    cut: dict[str, int] = field(default_factory=dict)
    busy: int = 0
    damaged: set[str] = field(default_factory=set)
    lost: set[str] = field(default_factory=set)
    lost_after_cut: bool = False
    stall: set[str] = field(default_factory=set)
    moved: str = ""
    elsewhere: bool = False
    refuses: int = 0
    license: str = ""
    sizeless: bool = False

    @property
    def commit(self) -> str:
        content = b"".join(k.encode() + v for k, v in sorted(self.files.items()))
        return hashlib.sha1(content).hexdigest()


def digest(name: str, content: bytes) -> str:
    if name.endswith(LARGE):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def from_folder(folder: Path) -> dict[str, bytes]:
    """The files of a checkpoint folder, to serve them."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in Path(folder).rglob("*")
        if path.is_file()
    }


class Hub:
    """The running server: `repositories` by name, `requests` as they came, `url` to reach it.

    A data set is a repository whose name begins with `datasets/`. `instead`: the end of a path ->
    what answers such requests in the hub's place (it takes the request; a list is used up first to
    last, and then the hub answers).
    """

    def __init__(self):
        self.repositories: dict[str, Repository] = {}
        self.requests: list[tuple[str, str, str]] = []  # method, path, range
        self.leaked: list[str] = []  # tokens that came to the other host
        self.instead: dict[str, Callable | list[Callable]] = {}
        self.lock = threading.Lock()
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_GET(self):
                hub.answer(self)

            do_HEAD = do_GET

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def sent(self, name: str) -> list[str]:
        """The ranges by which a file was asked for, "" where all of it was."""
        return [span for _, path, span in self.requests if path.endswith(f"/{name}")]

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        path = unquote(urlsplit(request.path).path)
        with self.lock:
            self.requests.append((request.command, path, request.headers.get("Range", "")))
        if self._instead(request, path):
            return
        if match := re.fullmatch(rf"/api/(models/|datasets/){NAME}(?:/revision/(.+))?", path):
            self._api(request, match[1].replace("models/", "") + match[2], match[3])
        elif match := re.fullmatch(rf"/api/(models/|datasets/){NAME}/tree/([^/]+)", path):
            self._tree(request, match[1].replace("models/", "") + match[2], match[3])
        elif match := re.fullmatch(rf"/cdn/((?:datasets/)?{NAME})/([^/]+)/(.+)", path):
            if token := request.headers.get("Authorization"):
                self.leaked.append(token)
            repository = self.repositories[match[1]]
            self._send(request, repository, match[4])
        elif match := re.fullmatch(rf"/((?:datasets/)?{NAME})/resolve/([^/]+)/(.+)", path):
            self._file(request, match[1], match[3], match[4])
        else:
            reply(request, 404, b"no such page")

    def _instead(self, request, path: str) -> bool:
        for end, answer in self.instead.items():
            if path.endswith(end) and answer:
                (answer.pop(0) if isinstance(answer, list) else answer)(request)
                return True
        return False

    def _find(self, request, name: str, revision: str | None, rest: str) -> Repository | None:
        repository = self.repositories.get(name)
        allowed = request.headers.get("Authorization") == "Bearer good"
        if repository is None or (repository.private and not allowed):
            # The hub does not tell strangers which of the two it is.
            status = 404 if request.headers.get("Authorization") else 401
            reply(request, status, b"", {"X-Error-Code": "RepoNotFound"})
            return None
        if repository.refuses:
            reply(request, repository.refuses, b"")
            return None
        if repository.moved:
            reply(request, 307, b"", {"Location": rest.replace(name, repository.moved)})
            return None
        if revision not in (None, "main", repository.commit):
            reply(request, 404, b"", {"X-Error-Code": "RevisionNotFound"})
            return None
        return repository

    def _api(self, request, name: str, revision: str | None) -> None:
        repository = self._find(request, name, revision, request.path)
        if repository is None:
            return
        siblings = []
        for path, content in repository.files.items():
            if repository.sizeless:
                siblings.append({"rfilename": path})
                continue
            sha1 = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            entry = {"rfilename": path, "size": len(content), "blobId": sha1}
            if path.endswith(LARGE):
                sha256 = hashlib.sha256(content).hexdigest()
                entry["lfs"] = {"size": len(content), "sha256": sha256, "pointerSize": 130}
            siblings.append(entry)
        info = {
            "id": name.removeprefix("datasets/"),
            "sha": repository.commit,
            "private": repository.private,
            "disabled": False,
            "gated": "manual" if repository.gated else False,
            "tags": [],
            "cardData": {"license": repository.license} if repository.license else None,
            "downloads": 0,
            "likes": 0,
            "siblings": siblings,
        }
        reply(request, 200, json.dumps(info).encode(), {"Content-Type": "application/json"})

    def _tree(self, request, name: str, revision: str) -> None:
        repository = self._find(request, name, revision, request.path)
        if repository is None:
            return
        tree = []
        for path, content in repository.files.items():
            sha1 = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            entry = {"type": "file", "path": path, "size": len(content), "oid": sha1}
            if path.endswith(LARGE):
                sha256 = hashlib.sha256(content).hexdigest()
                entry["lfs"] = {"oid": sha256, "size": len(content), "pointerSize": 130}
            tree.append(entry)
        reply(request, 200, json.dumps(tree).encode(), {"Content-Type": "application/json"})

    def _file(self, request, name: str, revision: str, path: str) -> None:
        repository = self._find(request, name, revision, request.path)
        if repository is None:
            return
        if repository.gated and request.headers.get("Authorization") != "Bearer good":
            reply(request, 403, b"", {"X-Error-Code": "GatedRepo"})
            return
        if path not in repository.files or path in repository.lost:
            reply(request, 404, b"", {"X-Error-Code": "EntryNotFound"})
            return
        if repository.elsewhere and path.endswith(LARGE):
            # Another host by its name: a client must not bring its token there.
            url = f"{self.url.replace('127.0.0.1', 'localhost')}/cdn/{name}/{revision}/{path}"
            reply(request, 302, b"", {"Location": url})
            return
        self._send(request, repository, path)

    def _send(self, request, repository: Repository, path: str) -> None:
        with self.lock:
            busy, repository.busy = repository.busy, max(0, repository.busy - 1)
            cut = repository.cut.get(path, 0)
            repository.cut[path] = max(0, cut - 1)
            if cut and repository.lost_after_cut:
                repository.lost.add(path)
        if busy:
            reply(request, 503, b"")
            return
        content = repository.files[path]
        headers = {
            "X-Repo-Commit": repository.commit,
            "ETag": f'"{digest(path, content)}"',
            "Accept-Ranges": "bytes",
        }
        if path in repository.damaged:
            content = bytes([content[0] ^ 1]) + content[1:]
        status, total = 200, len(content)
        if match := re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("Range", "")):
            first, last = int(match[1]), min(int(match[2] or total - 1), total - 1)
            status, content = 206, content[first : last + 1]
            headers["Content-Range"] = f"bytes {first}-{last}/{total}"
        stalled = path in repository.stall
        reply(request, status, content, headers, len(content) // 2 if cut or stalled else None)
        while stalled and path in repository.stall:
            time.sleep(0.02)


def reply(request, status: int, body: bytes, headers=None, only: int | None = None) -> None:
    """Send an answer, or `only` so many bytes of it before the line goes dead."""
    request.send_response(status)
    for key, value in (headers or {}).items():
        request.send_header(key, value)
    request.send_header("Content-Length", str(len(body)))
    request.end_headers()
    if request.command != "HEAD":
        request.wfile.write(body if only is None else body[:only])
    if only is not None:
        request.wfile.flush()
        request.close_connection = True


@contextmanager
def serve():
    """Run a hub on a free port of this machine; gives the Hub."""
    hub = Hub()
    thread = threading.Thread(target=hub.server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.server.shutdown()
        hub.server.server_close()
        thread.join()
