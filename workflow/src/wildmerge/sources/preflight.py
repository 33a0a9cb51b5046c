"""Judge checkpoints before they are downloaded, from what costs kilobytes.

Listing, config.json, the headers of safetensors files, and the tokenizer where the vocabularies
differ. What only the weights can tell (NaN, a copy of the base, another ancestor) is left to the
verdict after the download.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from wildmerge import WildmergeError
from wildmerge.checkpoints.compatibility import (
    EMBEDDING,
    TOKENIZER_FILES,
    Headers,
    compare,
    parse_config,
    parse_header,
    read_tokens,
)
from wildmerge.checkpoints.conversions import (
    ADAPTER,
    HEAD,
    adapter_updates,
    plan,
    plan_base,
    planned,
)
from wildmerge.sources import hub_client as hub
from wildmerge.sources.fetch import choose
from wildmerge.sources.lock import is_hub, takes_pickles
from wildmerge.tensors.weights import INDEX

CONNECTIONS = 8
USABLE, CONVERTED, ADMITTED, UNUSABLE = "usable", "with conversion", "admitted", "UNUSABLE"
UNSEEN = "not looked at"


@dataclass
class Report:
    """What is known of one row of models.tsv: its verdict, bytes to download, sentences on it."""

    base: str
    model: str
    repo: str
    verdict: str
    size: int = 0
    notes: list[str] = field(default_factory=list)


@dataclass
class _Source:
    """A repository or a folder: sizes of its files, and how to read bytes [first, last) of one."""

    name: str
    sizes: dict[str, int]
    read: Callable[[str, int, int], bytes]
    notes: list[str]

    def whole(self, name: str) -> bytes:
        return self.read(name, 0, self.sizes[name])

    def json(self, name: str) -> dict:
        return parse_config(self.whole(name), f"{self.name}, file {name}")


@dataclass
class _Look:
    """What was seen of a checkpoint: its chosen files and its headers."""

    source: _Source
    names: list[str]
    headers: Headers

    def with_tokens(self) -> Headers:
        tokens = None
        if "tokenizer.json" in self.names:
            tokens = read_tokens(self.source.whole("tokenizer.json"), self.source.name)
        return replace(self.headers, tokens=tokens)


def check(rows: list[dict]) -> list[Report]:
    """Judge rows of models.tsv, among them the base of every checkpoint; one report a row."""
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        looks = list(pool.map(_look_or_error, rows))
    bases = {r["base"]: look for r, look in zip(rows, looks, strict=True) if r["model"] == "base"}
    # One after another: transformers cannot be imported by several threads at once.
    return [_judge(row, look, bases[row["base"]]) for row, look in zip(rows, looks, strict=True)]


def _look_or_error(row: dict) -> _Look | WildmergeError | None:
    try:
        return _look(row)
    except WildmergeError as error:
        return error


def _source(row: dict) -> _Source | None:
    """Where a row's files are; None for what is made on this machine."""
    repo = row["repo"]
    if is_hub(row):
        listing = hub.list_files(repo, row["revision"] or None)
        notes = [] if row["revision"] else ["not locked"]
        if listing.repo != repo:
            notes.append(f"it is called {listing.repo} now")
        sizes = {name: size for name, (size, _) in listing.files.items()}
        return _Source(repo, sizes, partial(hub.read, listing.repo, listing.revision), notes)
    if repo.startswith("dir:"):
        folder = Path(repo.removeprefix("dir:"))
        if not folder.is_dir():
            raise WildmergeError(f"A folder was expected at {folder}, but there is none.")

        def read(name: str, first: int, last: int) -> bytes:
            with open(folder / name, "rb") as file:
                file.seek(first)
                return file.read(last - first)

        sizes = {path.name: path.stat().st_size for path in folder.iterdir() if path.is_file()}
        return _Source(repo, sizes, read, [])
    return None


def _look(row: dict) -> _Look | None:
    source, repo = _source(row), row["repo"]
    if source is None:
        return None
    names = choose(set(source.sizes), repo, source.whole, takes_pickles(row))
    tensors = {}
    for name in names:
        if name.endswith(".safetensors"):
            tensors |= parse_header(
                partial(source.read, name), source.sizes[name], f"{repo}, file {name}"
            )
    if INDEX in names and (lost := set(source.json(INDEX)["weight_map"]) - set(tensors)):
        raise WildmergeError(
            f"All tensors of its index were expected in the shards of {repo}, but {min(lost)} is "
            f"in none ({len(lost)} missing). Choose another revision or another checkpoint."
        )
    adapter = any(".lora_" in name for name in tensors)
    config = ADAPTER if adapter else "config.json"
    if config not in names:
        raise WildmergeError(
            f"A {config} was expected in {repo}, but there is none. Choose another checkpoint."
        )
    tokenizer = any(name in names for name in TOKENIZER_FILES)
    headers = Headers(source.json(config), tensors, None, tokenizer)
    if row["model"] == "base":
        headers = planned(headers, headers, plan_base(headers, same_head=True))
    return _Look(source, names, headers)


def _judge(row: dict, look, base) -> Report:
    report = Report(row["base"], row["model"], row["repo"], UNUSABLE)
    if isinstance(look, WildmergeError):
        report.notes.append(str(look))
        return report
    if look is None or base is None or isinstance(base, WildmergeError):
        report.verdict = UNSEEN
        why = "it is made here" if look is None else "its base could not be looked at"
        report.notes.append(why)
        return report
    if is_hub(row):
        report.size = sum(look.source.sizes[name] for name in look.names)
    report.notes += look.source.notes
    if any(name.endswith(".bin") for name in look.names):
        report.verdict = ADMITTED
        report.notes.append("pickled weights, whose shapes are seen after the download")
    elif ".lora_" in "".join(look.headers.tensors):
        _judge_adapter(report, look, base)
    elif row["model"] == "base":
        if look.headers.tokenizer:
            report.verdict = USABLE
        else:
            report.notes.append("a base needs a tokenizer, it has none")
    else:
        _judge_expert(report, row, look, base)
    return report


def _judge_adapter(report: Report, look: _Look, base: _Look) -> None:
    try:
        updates = adapter_updates(base.headers, look.headers.tensors, look.headers.config)
    except (ValueError, KeyError) as error:
        report.notes.append(f"an adapter that cannot be merged: {error}")
        return
    report.verdict = CONVERTED
    report.notes.append(f"an adapter, to be merged into the base ({len(updates)} tensors)")


def _judge_expert(report: Report, row: dict, look: _Look, base: _Look) -> None:
    ours, theirs = base.headers, look.headers
    rows = [headers.tensors.get(EMBEDDING, ("", (0,)))[1][0] for headers in (ours, theirs)]
    if rows[0] != rows[1]:  # only now the tokenizers are worth their megabytes
        ours, theirs = base.with_tokens(), look.with_tokens()
    todo = plan(ours, theirs)
    found = compare(ours, planned(ours, theirs, todo))
    doubts = found.doubts + todo.doubts
    if HEAD in todo.drop:
        report.notes.append(f"if {HEAD} equals the embedding, which is seen after the download")
    report.notes += found.refusals + doubts + todo.said + found.warnings
    if found.refusals or (doubts and not row["admit"]):
        return
    if doubts:
        report.verdict = ADMITTED
        report.notes.append(f"admitted: {row['admit']}")
    else:
        report.verdict = CONVERTED if todo.said else USABLE


def table(reports: list[Report]) -> str:
    """The reports as one table for people, with the sum of bytes below it."""
    wide = max(len(f"{r.base}/{r.model}") for r in reports)
    lines = [
        f"{f'{r.base}/{r.model}':{wide}}  {r.verdict:15}  {r.size / 1e9:7.2f} GB  "
        f"{r.repo}{': ' if r.notes else ''}{'; '.join(r.notes)}"
        for r in reports
    ]
    total = sum(r.size for r in reports) / 1e9
    bad = sum(r.verdict == UNUSABLE for r in reports)
    lines.append(f"{len(reports)} rows, {bad} unusable, {total:.2f} GB to download.")
    return "\n".join(lines) + "\n"
