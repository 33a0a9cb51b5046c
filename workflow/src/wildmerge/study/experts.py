"""config/experts.yaml: the examples' checkpoints that are fine-tuned here. Light enough for a plan.

They are no part of the paper's study.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from wildmerge import WildmergeError
from wildmerge.sources import Trained, source_of
from wildmerge.validation import read_yaml, validate


@dataclass(frozen=True)
class Expert:
    """How one checkpoint is fine-tuned.

    Attributes:
        set: the set of experts that it belongs to, which share their training texts.
        sources: what its texts are taken from.
        training: steps, batch (sequences a step), tokens (a sequence), learning_rate, seed.
    """

    set: str
    sources: list[str]
    training: dict[str, int | float]


@dataclass(frozen=True)
class Experts:
    """The sheet, checked, against the rows of models.tsv.

    Attributes:
        package: name, version and sha256 of the Python package that carries the texts.
        known: every expert of the sheet by its name.
        trained: the checkpoints that are fine-tuned here, "base/model" -> expert.
    """

    package: dict[str, str]
    known: dict[str, Expert]
    trained: dict[str, Expert]

    def sources(self, name: str) -> list[str]:
        """What the experts of a set are trained on, together, sorted."""
        of_set = [expert for expert in self.known.values() if expert.set == name]
        return sorted({source for expert in of_set for source in expert.sources})


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
        for expert, sources in settings["experts"].items():
            if expert in known:
                raise WildmergeError(
                    f"{path}: a name of its own was expected for each expert, found {expert} in "
                    "two sets. Rename one of the two."
                )
            known[expert] = Expert(name, sources, settings["training"])
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
    return Experts(sheet["package"], known, trained)
