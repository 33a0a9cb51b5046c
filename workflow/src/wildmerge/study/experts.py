"""config/experts.yaml: checkpoints that are fine-tuned here. Light enough for a plan.

They are no part of the paper's study.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wildmerge import WildmergeError
from wildmerge.files import read_json
from wildmerge.sources import Trained, source_of
from wildmerge.validation import read_yaml, validate

# What experts have become where the outcomes of a study were made: "base/model" -> its record.
EXPERTS_LOCK = "experts.lock.json"


@dataclass(frozen=True)
class Expert:
    """How one checkpoint is fine-tuned.

    Attributes:
        set: the set of experts that it belongs to, which share their training texts.
        sources: what its texts are taken from.
        training: steps, batch (sequences a step), tokens (a sequence), learning_rate, seed, and
            `held_out` and `portable` where they are given.
        adapter: rank and alpha of the LoRA adapter that it is, None if all weights are trained.
        removes: `against`, `layer` and `prompts`, where a direction is projected out of the weights
            and nothing is trained.
    """

    set: str
    sources: list[str]
    training: dict[str, int | float]
    adapter: dict[str, int | float] | None = None
    removes: dict[str, Any] | None = None

    @property
    def texts(self) -> list[str]:
        """All the sources that it reads."""
        return [*self.sources, *(self.removes["against"] if self.removes else [])]

    def how(self) -> dict[str, Any]:
        """All that decides what it becomes, but the texts; plain, for a job."""
        made = {"sources": self.sources, "training": self.training}
        return made | {
            key: value
            for key, value in (("adapter", self.adapter), ("removes", self.removes))
            if value
        }


@dataclass(frozen=True)
class Experts:
    """The sheet, checked, against the rows of models.tsv.

    Attributes:
        package: name, version and sha256 of the Python package that carries the training splits.
        declared: sources that are no training split of it, by name.
        unseen: by set, the files whose questions no text may repeat.
        known: every expert of the sheet by its name.
        trained: the checkpoints that are fine-tuned here, "base/model" -> expert.
    """

    package: dict[str, str]
    declared: dict[str, dict[str, Any]]
    unseen: dict[str, list[dict[str, Any]]]
    known: dict[str, Expert]
    trained: dict[str, Expert]

    def sources(self, name: str) -> dict[str, dict[str, Any]]:
        """What the experts of a set read, together, sorted: each as declared, {} if it is not."""
        of_set = [expert for expert in self.known.values() if expert.set == name]
        names = sorted({source for expert in of_set for source in expert.texts})
        return {source: self.declared.get(source, {}) for source in names}


def check_expert(config: Path, trained: str, record: Mapping[str, Any]) -> None:
    """Hold an expert that was made here against what it has become before.

    Args:
        config: the folder of the sheets.
        trained: its name, base/model.
        record: `digest` and `made`, as its learned.json has them.

    Raises:
        WildmergeError: the lock names another digest.
    """
    path = config / EXPERTS_LOCK
    known = read_json(path).get(trained) if path.exists() else None
    if known and known["digest"] != record["digest"]:
        then, now = (
            f"{one['made']['processor']} with torch {one['made']['torch']}"
            for one in (known, record)
        )
        raise WildmergeError(
            f"{trained}: the weights with digest {known['digest'][:12]} were expected, as {path} "
            f"has them from {then}, found {record['digest'][:12]} on {now}. Outcomes that were "
            "made with the former can't be joined by new ones. Use the same versions as "
            "requirements.lock, or take the entry out of that file and discard what was made with "
            "those weights."
        )


def load_experts(
    config: Path, schemas: Path, models: Mapping[tuple[str, str], dict[str, str]]
) -> Experts:
    """Read and check experts.yaml.

    Args:
        config: the folder of the sheets.
        schemas: the folder of their schemas.
        models: the rows of models.tsv, (base, model) -> row.

    Raises:
        WildmergeError: the sheet has another form, an expert stands in two sets, or a row names
            an expert that is in none.
    """
    path = config / "experts.yaml"
    sheet = read_yaml(path)
    validate(sheet, read_yaml(schemas / "experts.schema.yaml"), str(path))
    known: dict[str, Expert] = {}
    for name, settings in sheet["sets"].items():
        for expert, made in settings["experts"].items():
            if expert in known:
                raise WildmergeError(
                    f"{path}: a name of its own was expected for each expert, found {expert} in "
                    "two sets. Rename one of the two."
                )
            own = {"sources": made} if isinstance(made, list) else dict(made)
            training = settings["training"] | own.pop("training", {})
            known[expert] = Expert(name, training=training, **own)
    trained = {}
    for (base, model), row in models.items():
        source = source_of(row["repo"])
        if isinstance(source, Trained):
            expert = source.named(row["repo"])
            if expert not in known:
                raise WildmergeError(
                    f"{config}/models.tsv, {base}/{model}: an expert of {path} was expected, found "
                    f"{row['repo']}. Known are {', '.join(known)}."
                )
            trained[f"{base}/{model}"] = known[expert]
    unseen = {name: settings.get("unseen", []) for name, settings in sheet["sets"].items()}
    return Experts(sheet["package"], sheet.get("sources", {}), unseen, known, trained)
