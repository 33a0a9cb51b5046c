"""What lm-eval's task files say of a suite, read as text: its import takes seconds, this a tenth.

A task's file mostly lies in a folder, or has a name, that its own name begins with; those files are
read first, and all fourteen thousand only for a name that is in none of them.
"""

import difflib
import re
from collections.abc import Iterator, Mapping
from functools import cache, cached_property
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from wildmerge import WildmergeError

from .kinds import check_metric
from .questions import BITS, check_file, is_parsed

_NAMED = re.compile(r"""^["']?(?:task|group)["']?\s*:[ \t]*["']?([\w.-]+)["']?\s*(?:#.*)?$""", re.M)
_TAGS = re.compile(r"""^["']?tag["']?\s*:(.*(?:\n[ \t]*-.*)*)""", re.M)


_INCLUDED = re.compile(r"""^["']?include["']?\s*:\s*["']?([^\s"'#]+)""", re.M)


def _tags(text: str) -> set[str]:
    """The tags in the text of a task file."""
    return {tag for tags in _TAGS.findall(text) for tag in re.findall(r"[\w.-]*\w[\w.-]*", tags)}


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """lm-eval's YAML; the Python functions that it names stay names."""


_Loader.add_constructor("!function", lambda loader, node: loader.construct_scalar(node))


class TaskFiles:
    """The task files below a folder, and the tasks, groups and tags in them.

    Args:
        root: lm-eval's folder `tasks`.
    """

    def __init__(self, root: Path):
        self.root = root
        self._read: dict[Path, set[str]] = {}

    @cached_property
    def _paths(self) -> list[Path]:
        return sorted(self.root.glob("**/*.yaml"))

    @cached_property
    def _folders(self) -> dict[str, list[Path]]:
        """The files by the names of the folders above them, and by their own."""
        found: dict[str, list[Path]] = {}
        depth = len(self.root.parts)
        for path in self._paths:
            for part in {path.stem.strip("_"), *path.parts[depth:-1]}:
                found.setdefault(part, []).append(path)
        return found

    def names(self, path: Path) -> set[str]:
        """The tasks, groups and tags that one file declares."""
        if path not in self._read:
            text = path.read_text(encoding="utf-8", errors="replace")
            found = set(_NAMED.findall(text)) | _tags(text)
            for included in _INCLUDED.findall(text):
                other = path.parent / included
                if other.is_file():
                    found |= _tags(other.read_text(encoding="utf-8", errors="replace"))
            self._read[path] = found
        return self._read[path]

    @cached_property
    def all(self) -> set[str]:
        """Every name, for which all files are read."""
        return set().union(*map(self.names, self._paths))

    def declaring(self, name: str) -> list[Path]:
        """The files that declare a task, group or tag; none if nothing does."""
        near = {p: None for i in range(len(name), 0, -1) for p in self._folders.get(name[:i], ())}
        for paths in (near, self._paths):
            if found := [path for path in paths if name in self.names(path)]:
                return found
        return []

    def leaves(self, name: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """The leaf tasks below a task, group or tag, each with its settings."""
        for path in self.declaring(name):
            said = self._settings(path)
            if "group" in said:
                if said["group"] == name:
                    for child in said["task"]:
                        yield from self.leaves(child if isinstance(child, str) else child["task"])
            elif isinstance(said.get("task"), str):
                yield said["task"], said

    def _settings(self, path: Path) -> dict[str, Any]:
        """A task file with what it includes."""
        own = yaml.load(path.read_text(encoding="utf-8"), _Loader) or {}
        included = own.pop("include", None) or []
        merged: dict[str, Any] = {}
        for other in [included] if isinstance(included, str) else included:
            merged |= self._settings(path.parent / other)
        return merged | own


@cache
def _installed() -> TaskFiles | None:
    """lm-eval's own task files, found without importing it."""
    spec = find_spec("lm_eval")
    folders = spec.submodule_search_locations if spec else None
    return TaskFiles(Path(folders[0]) / "tasks") if folders else None


def check_tasks(suites: Mapping[str, dict[str, Any]], where: str) -> None:
    """Hold suites against lm-eval's task files and one's own, before any question is brought.

    Args:
        suites: config/suites.yaml.
        where: its path, for messages.

    Raises:
        WildmergeError: lm-eval has no such task, the task can't be scored by its metric, few-shot
            examples would be taken from the questions that are asked, or a file of one's own is
            missing or lacks a column.
    """
    files = _installed()
    if files is None:
        return
    for suite, spec in suites.items():
        for task, wanted in spec["tasks"].items():
            place = f"{where}, suite {suite}, task {task}"
            if "file" in wanted:
                _check_own(files, wanted, place)
                continue
            names = wanted.get("members") or [task]
            for name in names:
                _check_name(files, name, place)
                for leaf, settings in files.leaves(name):
                    check_metric(leaf, settings, wanted["metric"], place)
                    if wanted["num_fewshot"]:
                        _check_examples(leaf, settings, wanted, place)


def _check_name(files: TaskFiles, name: str, place: str) -> None:
    """Refuse what lm-eval has no task, group or tag for."""
    if not files.declaring(name):
        near = difflib.get_close_matches(name, files.all, 3)
        known = f" Near it are {', '.join(near)}." if near else ""
        raise WildmergeError(
            f"{place}: a task, group or tag of lm-eval {version('lm_eval')} was expected, found "
            f"{name!r}.{known} Correct the name; `lm_eval ls tasks` lists what there is."
        )


def _check_own(files: TaskFiles, wanted: Mapping[str, Any], place: str) -> None:
    """Look at a task that is a file of one's own: the file, its template and its metric."""
    check_file(wanted, place)
    template = wanted.get("template")
    if isinstance(template, str):
        _check_name(files, template, place)
        found = list(files.leaves(template))
        if [leaf for leaf, _ in found] != [template]:
            raise WildmergeError(
                f"{place}: one task of lm-eval was expected as the template, found {template!r}, "
                f"which stands for {len(found)}. Name one of them."
            )
        check_metric(template, found[0][1], wanted["metric"], place)
    if wanted.get("num_fewshot") and "examples" not in wanted:
        raise WildmergeError(
            f"{place}: a file of `examples` was expected, out of which {wanted['num_fewshot']} "
            "precede each question, found none. Name one, or drop num_fewshot."
        )
    if (wanted["metric"] == BITS) and not is_parsed(wanted):
        raise WildmergeError(
            f"{place}: a text without a template was expected for {BITS}, found {template!r}. "
            "Drop `template`."
        )


def _check_examples(
    leaf: str, settings: dict[str, Any], wanted: Mapping[str, Any], place: str
) -> None:
    """Refuse few-shot examples out of the split whose questions are asked."""
    if (settings.get("fewshot_config") or {}).get("samples"):
        return
    tests, validation = settings.get("test_split"), settings.get("validation_split")
    examples = [settings.get("fewshot_split"), settings.get("training_split")]
    asked = tests or validation
    if brought := wanted.get("files"):
        asked = tests if tests in brought else validation
        examples = [split for split in (*examples, validation, tests) if split in brought]
    chosen = next(filter(None, examples), asked)
    if chosen == asked:
        way_out = "Name a file of another split under `files`" if brought else "Choose another task"
        raise WildmergeError(
            f"{place}: examples from another split than the questions were expected, but the "
            f"{wanted['num_fewshot']} few-shot examples of lm-eval's {leaf} would come from "
            f"split {asked!r}, whose questions are asked. {way_out}, or set num_fewshot: 0."
        )
