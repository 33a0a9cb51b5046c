"""What the figures and tables of a study are made from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from wildmerge import WildmergeError
from wildmerge.analysis import read_table
from wildmerge.study import CSV, SIMILARITY

from .looks import Looks, Recipes


@dataclass(frozen=True)
class Similarity:
    """The products of a base's task vectors, tensor by tensor.

    Attributes:
        models: the names of the k checkpoints.
        gram: (tensors, k, k) float64.
    """

    models: list[str]
    gram: np.ndarray

    def of(self, names: Sequence[str]) -> np.ndarray:
        """The Gram matrices of these checkpoints in this order, (tensors, names, names)."""
        places = [self.models.index(name) for name in names]
        return self.gram[:, places][:, :, places]


@dataclass(frozen=True)
class Inputs:
    """What a figure or table may be made from; what its module's `INPUTS` names is there.

    Attributes:
        study: the study's YAML.
        checkpoints: base -> the checkpoints that the study draws from, in the sheet's order.
        recipes: the study's recipes by name, see `looks.Recipes`.
        frames: the CSV files of the study that were asked for, by name.
        similarities: base -> how its task vectors lie to each other.
        published: the paper's own tables that were asked for, by the name of their file.
    """

    study: Mapping[str, Any]
    checkpoints: Mapping[str, list[str]]
    recipes: Recipes
    frames: Mapping[str, pd.DataFrame]
    similarities: Mapping[str, Similarity]
    published: Mapping[str, pd.DataFrame]

    @cached_property
    def looks(self) -> Looks:
        """The labels, order and looks of the study's recipes."""
        return Looks(self.recipes)

    @property
    def scores(self) -> pd.DataFrame:
        """scores.csv: a row a model and task."""
        return self._frame("scores")

    @property
    def merges(self) -> pd.DataFrame:
        """merges.csv: a row a model and suite."""
        return self._frame("merges")

    @property
    def comparisons(self) -> pd.DataFrame:
        """comparisons.csv: a row a model and reference."""
        return self._frame("comparisons")

    @property
    def intervals(self) -> pd.DataFrame:
        """intervals.csv: a row a recipe, size and reference."""
        return self._frame("intervals")

    @property
    def answers(self) -> pd.DataFrame:
        """answers.csv: a row a recipe and reference."""
        return self._frame("answers")

    @property
    def methods(self) -> pd.DataFrame:
        """methods.csv: a row a pair of recipes, or a planned contrast, and size."""
        return self._frame("methods")

    @property
    def best(self) -> pd.DataFrame:
        """best.csv: a row a merge, by its gain over the base."""
        return self._frame("best")

    @property
    def calibrated(self) -> pd.DataFrame:
        """calibrated.csv: a row a model and outcome by likelihood."""
        return self._frame("calibrated")

    def _frame(self, name: str) -> pd.DataFrame:
        if name not in self.frames:
            raise WildmergeError(
                f"{name}.csv was expected among the inputs of this figure or table, found "
                f"{', '.join(self.frames) or 'none'}. Add {name!r} to the module's INPUTS."
            )
        return self.frames[name]


def read_inputs(
    files: Mapping[str, Sequence[str]],
    study: Mapping[str, Any],
    checkpoints: Mapping[str, list[str]],
    recipes: Recipes,
) -> Inputs:
    """Read the files of a figure or table.

    Args:
        files: paths by name, as `study.catalogue.files` gives them.
        study: the study's YAML.
        checkpoints: base -> checkpoints, in the order of the study's bases.
        recipes: the study's recipes by name.
    """
    similar = zip(checkpoints, files.get(SIMILARITY, []), strict=False)
    return Inputs(
        study=study,
        checkpoints=checkpoints,
        recipes=recipes,
        frames={name: read_table(files[name][0]) for name in CSV if name in files},
        similarities={base: read_similarity(path) for base, path in similar},
        published={Path(path).stem: pd.read_csv(path) for path in files.get("published", [])},
    )


def read_similarity(path: str | Path) -> Similarity:
    """Read the similarity.npz of a base."""
    with np.load(path) as arrays:
        return Similarity([str(name) for name in arrays["models"]], arrays["gram"])
