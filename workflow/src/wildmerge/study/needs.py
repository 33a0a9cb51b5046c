"""What each rule of the workflow needs, answered by names: no wildcards, no Snakemake, no torch."""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from wildmerge import WildmergeError

from . import catalogue, paths
from .contrasts import contrasts
from .missing import missing_checkpoints
from .plan import BASE, IDENTITY, Evaluation, pool
from .sharing import Sharing
from .sheets import Sheets


@dataclass(frozen=True)
class Needs:
    """The studies of a project, and what their rules need.

    Args:
        sheets: all of config/.
        scratch: where merged weights wait for their evaluation.
    """

    sheets: Sheets
    scratch: paths.Scratch

    @cached_property
    def sharing(self) -> Sharing:
        """What merges share."""
        every = (e for rows in self.sheets.evaluations.values() for e in rows)
        return Sharing(every, self.sheets.recipes)

    # --- Sheets ------------------------------------------------------------------

    def row(self, base: str, model: str) -> dict[str, str]:
        """The row of models.tsv.

        Raises:
            WildmergeError: there is none.
        """
        try:
            return self.sheets.models[base, model]
        except KeyError:
            raise WildmergeError(
                f"A row {base}/{model} of config/models.tsv was expected, found none. Correct the "
                "name, or add the row."
            ) from None

    def recipe(self, name: str) -> dict[str, Any]:
        """A recipe that a study merges by, without its label: another one changes no merge.

        Raises:
            WildmergeError: no study uses it.
        """
        try:
            entry = self.sheets.recipes[name]
        except KeyError:
            raise WildmergeError(
                f"No study of config/studies/ uses a recipe {name}. Correct the name, or add it to "
                "a study."
            ) from None
        return {key: value for key, value in entry.items() if key != "label"}

    def gb(self, base: str) -> float:
        """GB of one checkpoint of a base in 16 bits."""
        return float(self.row(base, BASE)["gb"])

    # --- Merges ------------------------------------------------------------------

    def drawn(self, base: str, subset: str) -> list[str]:
        """The checkpoints of a draw or group.

        Raises:
            WildmergeError: no study has such a subset.
        """
        try:
            return list(self.sheets.members[base, subset])
        except KeyError:
            raise WildmergeError(
                f"No study of config/studies/ has a subset {subset} of {base}. Correct the name."
            ) from None

    def members(self, base: str, subset: str, recipe: str) -> list[str]:
        """The checkpoints in a model: none for the base, itself for a checkpoint, else the draw."""
        if recipe == IDENTITY:
            return [] if subset == BASE else [subset]
        return self.drawn(base, subset)

    def factors(self, base: str, subset: str, recipe: str) -> list[str]:
        """The factorisations that a merge shares with enough others."""
        self.recipe(recipe)
        members = self.drawn(base, subset)
        if self.sharing.expert_factors(base, recipe, members):
            return [paths.expert_factors(base, model) for model in members]
        if self.sharing.sum_factors(base, subset, recipe):
            return [paths.sum_factors(base, subset)]
        return []

    def update(self, base: str, subset: str, recipe: str) -> str | list[str]:
        """The update before its scale that a merge shares with enough others; else nothing."""
        self.recipe(recipe)
        name = self.sharing.update(base, subset, recipe)
        return paths.shared_update(base, subset, name) if name else []

    def recipe_of_update(self, base: str, subset: str, update: str) -> dict[str, Any]:
        """One of the recipes that share an update.

        Raises:
            WildmergeError: no merge of any study has such an update.
        """
        entry = self.sharing.any_recipe_of(base, subset, update)
        if entry is None:
            raise WildmergeError(f"No study has merges of {base}/{subset} that share {update}.")
        return self.recipe(entry["name"])

    def model(self, base: str, subset: str, recipe: str) -> str:
        """The folder of weights that an evaluation reads."""
        if recipe == IDENTITY:
            return paths.checkpoint(base, subset)
        return self.scratch.model(base, subset, recipe)

    def home(self, base: str, subset: str, recipe: str) -> str:
        """Where that folder lies if there is no scratch."""
        if recipe == IDENTITY:
            return paths.checkpoint(base, subset)
        return paths.Scratch().model(base, subset, recipe)

    def summary(self, base: str, subset: str, recipe: str) -> str | list[str]:
        """The summary that comes with the weights of a merge; nothing for what is not merged."""
        return [] if recipe == IDENTITY else paths.summary(base, subset, recipe)

    # --- Studies -----------------------------------------------------------------

    def study(self, name: str) -> dict[str, Any]:
        """A study as its file says it.

        Raises:
            WildmergeError: there is none of that name.
        """
        if name not in self.sheets.studies:
            known = self.sheets.studies
            near = difflib.get_close_matches(name, known, 1)
            raise WildmergeError(
                f"A study of config/studies/ was expected as the target, found {name!r}. "
                + (f"Did you mean {near[0]}? " if near else "")
                + f"Known are {', '.join(known)}. Correct the name, or ask for a file below "
                "results/."
            )
        return self.sheets.studies[name]

    def planned(self, study: str) -> list[dict[str, Any]]:
        """One dict an evaluation of a study: what it is, and the files that hold its outcome.

        Those that are missing are among them: `missing` says why.
        """
        checkpoints = self.study_checkpoints(study)
        return [
            {
                "base": e.base,
                "subset": e.subset,
                "n": e.n,
                "draw": e.draw,
                "members": list(e.members),
                # How many checkpoints it was drawn from: those that are missing are in no draw
                # that counts.
                "pool": len(checkpoints[e.base]),
                "recipe": e.recipe,
                "suite": e.suite,
                "scores": paths.scores(e.base, e.subset, e.recipe, e.suite),
                "items": paths.items(e.base, e.subset, e.recipe, e.suite),
                "summary": paths.summary(e.base, e.subset, e.recipe) if e.is_merge else None,
                "missing": e.missing,
            }
            for e in self.sheets.evaluations[study]
        ]

    def declared(self, study: str) -> dict[str, Any]:
        """What a study declares of its questions: margin, population, planned contrasts."""
        entry = self.study(study)
        said = {key: entry[key] for key in ("margin", "population") if key in entry}
        return said | {"contrasts": contrasts(self.sheets.study_recipes[study])}

    def outcomes(
        self, study: str, kind: str, model: tuple[str, str, str] | None = None
    ) -> list[str]:
        """The files of one kind that a study's evaluations leave, but for what is missing.

        Args:
            study: its name.
            kind: `scores`, `items` or `summary`.
            model: (base, subset, recipe) of one model; None for all.
        """
        return list(
            dict.fromkeys(
                row[kind]
                for row in self.planned(study)
                if row[kind]
                and not row["missing"]
                and model in (None, (row["base"], row["subset"], row["recipe"]))
            )
        )

    def made_from(self, kind: str, name: str, study: str, home: Path) -> dict[str, list[str]]:
        """The files that a figure or table of a study is made from; see `catalogue.input_files`."""
        return catalogue.input_files(kind, name, study, self.study(study)["bases"], home)

    def compared(self, base: str) -> list[str]:
        """The checkpoints of a base whose task vectors a study compares, in the sheet's order."""
        asking = [
            name
            for name, study in self.sheets.studies.items()
            if catalogue.asks_for(study, catalogue.SIMILARITY)
        ]
        chosen = {m for study in asking for m in self.study_checkpoints(study).get(base, [])}
        return [model for b, model in self.sheets.models if b == base and model in chosen]

    def study_checkpoints(self, study: str) -> dict[str, list[str]]:
        """The checkpoints that a study has, by base, in the sheet's order; no missing ones."""
        entry, rows = self.study(study), list(self.sheets.models.values())
        found = {}
        for base in entry["bases"]:
            gone = missing_checkpoints(entry, base)
            found[base] = [m for m in pool(entry, rows, base, study) if m not in gone]
        return found

    def study_models(self, study: str) -> list[dict[str, str]]:
        """The rows of models.tsv that a study is about, bases first."""
        checkpoints = self.study_checkpoints(study)
        return [
            self.row(base, model)
            for base, models in checkpoints.items()
            for model in [BASE, *models]
        ]

    def study_verdicts(self, study: str) -> list[str]:
        """The verdicts on the checkpoints that a study merges, or has, if it merges none."""
        merged = {(e.base, m) for e in self._merges(study) for m in e.members}
        every = {(b, m) for b, models in self.study_checkpoints(study).items() for m in models}
        return [paths.verdict(base, model) for base, model in sorted(merged or every)]

    def study_outputs(self, study: str, kind: str, suffix: str) -> list[str]:
        """A study's figures or tables in one format."""
        names = self.study(study)[kind]
        return [paths.study(study, kind, f"{name}.{suffix}") for name in names]

    def study_files(self, study: str) -> list[str]:
        """Everything that a study ends in."""
        scored = bool(self.sheets.evaluations[study])
        names = ["scores.csv", "merges.csv", "report.html"] if scored else []
        return [
            paths.study(study, "checkpoints.csv"),
            *(paths.study(study, name) for name in names),
            *self.study_outputs(study, "figures", "pdf"),
            *self.study_outputs(study, "tables", "csv"),
            *(self.kept(study) if self.study(study).get("keep") else []),
        ]

    def kept(self, study: str) -> Iterable[str]:
        """The model cards of a study's merges, each in the folder that keeps the weights."""
        return dict.fromkeys(
            paths.kept(study, e.base, e.subset, e.recipe) for e in self._merges(study)
        )

    def chosen(self, studies: list[str], where: str) -> list[str]:
        """The studies of the target `all`.

        Raises:
            WildmergeError: a study that does not exist.
        """
        for study in studies:
            if study not in self.sheets.studies:
                raise WildmergeError(
                    f"{where}: a study of config/studies/ was expected in `studies`, found "
                    f"{study!r}. Known are {', '.join(self.sheets.studies)}. Correct the name."
                )
        return studies

    def _merges(self, study: str) -> list[Evaluation]:
        """The merges of a study, but for the missing ones."""
        return [e for e in self.sheets.evaluations[study] if e.is_merge and not e.missing]
