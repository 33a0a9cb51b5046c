"""Judge checkpoints before they are downloaded: what their sources list, and a few short reads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from wildmerge import WildmergeError

from ._choose import choose_files
from ._source import Listing
from .lock import takes_pickles
from .registry import source_of

if TYPE_CHECKING:
    from wildmerge.checkpoints import Preview

CONNECTIONS = 8
UNUSABLE, UNSEEN = "UNUSABLE", "not looked at"


@dataclass
class Judgement:
    """What is known of one row of models.tsv.

    Attributes:
        base: of the row.
        model: of the row.
        repo: of the row.
        verdict: whether it can be used, in a word or two.
        size: bytes to download.
        license: as its model card names it, or "".
        gated: whether its owner lets only those have it who accept terms.
        notes: sentences on it.
    """

    base: str
    model: str
    repo: str
    verdict: str
    size: int = 0
    license: str = ""
    gated: bool = False
    notes: list[str] = field(default_factory=list)


@dataclass
class _Seen:
    listing: Listing
    preview: Preview


def judge_rows(rows: list[dict[str, str]]) -> list[Judgement]:
    """Judge rows of models.tsv, among them the base of every checkpoint; one judgement a row."""
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        every = list(pool.map(_look_or_error, rows))
    bases = {r["base"]: seen for r, seen in zip(rows, every, strict=True) if r["model"] == "base"}
    # One after another: transformers cannot be imported by several threads at once.
    return [_judge(row, seen, bases[row["base"]]) for row, seen in zip(rows, every, strict=True)]


def _look_or_error(row: dict[str, str]) -> _Seen | WildmergeError | None:
    try:
        return _look(row)
    except WildmergeError as error:
        return error
    except Exception as error:  # what one repository holds must not cost the others
        return _unreadable(row, error)


def _unreadable(row: dict[str, str], error: Exception) -> WildmergeError:
    return WildmergeError(
        f"A checkpoint that can be read was expected in {row['repo']}, but it cannot be judged "
        f"({type(error).__name__}: {str(error)[:200]}). Choose another checkpoint."
    )


def _look(row: dict[str, str]) -> _Seen | None:
    """What is seen of a row; None if its source shows nothing."""
    from wildmerge.checkpoints import preview_checkpoint

    repo = row["repo"]
    listing = source_of(repo).listing(row)
    if listing is None:
        return None
    names = choose_files(set(listing.files), repo, listing.whole, takes_pickles(row))
    sizes = {name: size for name, (size, _) in listing.files.items()}
    seen = preview_checkpoint(sizes, listing.read, names, repo, is_base=row["model"] == "base")
    return _Seen(listing, seen)


def _judge(
    row: dict[str, str],
    seen: _Seen | WildmergeError | None,
    base: _Seen | WildmergeError | None,
) -> Judgement:
    from wildmerge.checkpoints import judge

    judgement = Judgement(row["base"], row["model"], row["repo"], UNUSABLE)
    if isinstance(seen, _Seen):
        judgement.license, judgement.gated = seen.listing.license, seen.listing.gated
    if isinstance(seen, WildmergeError):
        judgement.notes.append(str(seen))
        return judgement
    if seen is None or base is None or isinstance(base, WildmergeError):
        judgement.verdict = UNSEEN
        why = "it is made here" if seen is None else "its base could not be looked at"
        judgement.notes.append(why)
        return judgement
    if seen.listing.remote:
        judgement.size = sum(seen.listing.files[name][0] for name in seen.preview.names)
    if source_of(row["repo"]).locked and not row["revision"]:
        judgement.notes.append("not locked")
    judgement.notes += seen.listing.notes
    is_base = row["model"] == "base"
    try:
        judgement.verdict, notes = judge(seen.preview, base.preview, is_base, row["admit"])
    except Exception as error:  # as above
        notes = [str(_unreadable(row, error))]
    judgement.notes += notes
    return judgement


def as_table(judgements: list[Judgement]) -> str:
    """The judgements as one table for people, with the sum of bytes below it."""
    wide = max(len(f"{j.base}/{j.model}") for j in judgements)
    terms = max(len(j.license or "-") for j in judgements)
    lines = [
        f"{f'{j.base}/{j.model}':{wide}}  {j.verdict:15}  {j.size / 1e9:7.2f} GB  "
        f"{j.license or '-':{terms}}  {'gated' if j.gated else '':5}  {j.repo}"
        f"{': ' if j.notes else ''}{'; '.join(j.notes)}"
        for j in judgements
    ]
    total = sum(j.size for j in judgements) / 1e9
    bad = sum(j.verdict == UNUSABLE for j in judgements)
    lines.append(f"{len(judgements)} rows, {bad} unusable, {total:.2f} GB to download.")
    return "\n".join(lines) + "\n"
