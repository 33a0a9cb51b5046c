"""Where the workflow's files lie, relative to the working folder. Pure."""

import hashlib
import os
from dataclasses import dataclass

_RESULTS = "results"
_MERGES = f"{_RESULTS}/merges"
_STUDIES = f"{_RESULTS}/studies"


def checkpoint(base: str, model: str) -> str:
    """The folder of a checkpoint's weights."""
    return f"resources/checkpoints/{base}/{model}"


def verdict(base: str, model: str) -> str:
    """What was found about a checkpoint's task vector."""
    return f"{_RESULTS}/task_vectors/{base}/{model}.json"


def admitted(base: str, model: str) -> str:
    """The same verdict, passed on only where the checkpoint can be merged."""
    return f"{_RESULTS}/admitted/{base}/{model}.json"


def similarity(base: str) -> str:
    """The products of all task vectors of a base."""
    return f"{_RESULTS}/task_vectors/{base}/similarity.npz"


def expert_factors(base: str, model: str) -> str:
    """The singular vectors of one checkpoint's task vectors, for the merges that share them."""
    return f"{_RESULTS}/task_vectors/{base}/{model}.factors"


def sum_factors(base: str, subset: str) -> str:
    """The factors of the sum of a subset's task vectors, for the merges that share them."""
    return f"{_MERGES}/{base}/{subset}/factors"


def shared_update(base: str, subset: str, update: str) -> str:
    """An update before its scale, for the merges that share it."""
    return f"{_MERGES}/{base}/{subset}/unscaled/{update}"


def merge(base: str, subset: str, recipe: str) -> str:
    """What stays of a merge: its mergekit YAML and its summary."""
    return f"{_MERGES}/{base}/{subset}/{recipe}"


def summary(base: str, subset: str, recipe: str) -> str:
    """A merge's norms, seconds, versions and the digests of all that went into it."""
    return f"{merge(base, subset, recipe)}/summary.json"


def scores(base: str, subset: str, recipe: str, suite: str) -> str:
    """The scores of one model on one suite."""
    return f"{_RESULTS}/scores/{base}/{subset}/{recipe}/{suite}.json"


def items(base: str, subset: str, recipe: str, suite: str) -> str:
    """Every question's outcome of one model on one suite."""
    return f"{_RESULTS}/scores/{base}/{subset}/{recipe}/{suite}.items.parquet"


def study(name: str, *parts: str) -> str:
    """A file or folder of a study's results."""
    return "/".join([_STUDIES, name, *parts])


def kept(name: str, base: str, subset: str, recipe: str) -> str:
    """The model card of a merge that a study keeps; the weights lie beside it."""
    return study(name, "kept", base, subset, recipe, "README.md")


@dataclass(frozen=True)
class Scratch:
    """Where merged weights wait for their evaluation.

    Attributes:
        folder: a disk of the site's, with environment variables in it; None keeps the weights
            among the results.
        working_folder: the folder in which the workflow runs; each has a place of its own there.
    """

    folder: str | None = None
    working_folder: str = "."

    def model(self, base: str, subset: str, recipe: str) -> str:
        """The folder of a merge's weights."""
        if self.folder is None:
            return f"{merge(base, subset, recipe)}/model"
        name = hashlib.sha256(self.working_folder.encode()).hexdigest()[:8]
        return f"{os.path.expandvars(self.folder)}/wildmerge-{name}/{base}/{subset}/{recipe}/model"
