"""What lm-eval's task files say of a suite, read as text: its import takes seconds, this a tenth.

A task's file mostly lies in a folder, or has a name, that its own name begins with; those files are
read first, and all fourteen thousand only for a name that is in none of them.
"""

import ast
import copy
import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache, cached_property
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from wildmerge import WildmergeError

from .kinds import check_metric
from .questions import BITS, FILES, check_file, is_parsed, local_data

_NAMED = re.compile(r"""^["']?(?:task|group)["']?\s*:[ \t]*["']?([\w.-]+)["']?\s*(?:#.*)?$""", re.M)
_TAGS = re.compile(r"""^["']?tag["']?\s*:(.*(?:\n[ \t]*-.*)*)""", re.M)
_INCLUDED = re.compile(r"""^["']?include["']?\s*:\s*["']?([^\s"'#]+)""", re.M)
_FUNCTIONS = re.compile(r"!function\s+([\w./]+)\.\w+")
# A key of a task's settings that no task file has: the Python files that it takes functions from.
_PYTHON = "python files"


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
        self.first: TaskFiles | None = None
        self._read: dict[Path, set[str]] = {}

    def behind(self, folder: str | None) -> "TaskFiles":
        """The same files, behind those of a folder of one's own, which win."""
        both = copy.copy(self)
        both.first = TaskFiles(Path(folder)) if folder else None
        return both

    @cached_property
    def paths(self) -> list[Path]:
        """All of them."""
        return sorted(self.root.glob("**/*.yaml"))

    @cached_property
    def _folders(self) -> dict[str, list[Path]]:
        """The files by the names of the folders above them, and by their own."""
        found: dict[str, list[Path]] = {}
        depth = len(self.root.parts)
        for path in self.paths:
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
        return set().union(*map(self.names, self.paths))

    def declaring(self, name: str) -> list[Path]:
        """The files that declare a task, group or tag; none if nothing does."""
        if self.first and (found := self.first.declaring(name)):
            return found
        near = {p: None for i in range(len(name), 0, -1) for p in self._folders.get(name[:i], ())}
        for paths in (near, self.paths):
            if found := [path for path in paths if name in self.names(path)]:
                return found
        return []

    def leaves(self, name: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """The leaf tasks below a task, group or tag, each with its settings."""
        for path in self.declaring(name):
            said = self.settings(path)
            if "group" in said:
                if said["group"] == name:
                    for child in said["task"]:
                        yield from self.leaves(child if isinstance(child, str) else child["task"])
            elif isinstance(said.get("task"), str):
                yield said["task"], said

    def settings(self, path: Path) -> dict[str, Any]:
        """A task file with what it includes."""
        try:
            text = path.read_text(encoding="utf-8")
            own = yaml.load(text, _Loader) or {}
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise WildmergeError(
                f"{path}: a task file of lm-eval was expected: {' '.join(str(error).split())}. "
                "Correct it."
            ) from None
        python = [path.parent / f"{name.replace('.', '/')}.py" for name in _FUNCTIONS.findall(text)]
        included = own.pop("include", None) or []
        merged: dict[str, Any] = {}
        for other in [included] if isinstance(included, str) else included:
            merged |= self.settings(path.parent / other)
        return merged | own | {_PYTHON: [*merged.get(_PYTHON, []), *python]}

    def missing(self, settings: Mapping[str, Any]) -> list[str]:
        """The packages that a task's Python files import and that are not installed."""
        return sorted(_missing(settings[_PYTHON], self.root.parent.parent, set()))


def _imports(body: Iterable[ast.stmt]) -> Iterator[str]:
    """The modules without which a file can't be imported."""
    for node in body:
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{name.name}" for name in node.names)
        elif isinstance(node, ast.Try) and all(
            any(isinstance(part, ast.Raise) for part in ast.walk(handler))
            for handler in node.handlers
        ):
            yield from _imports(node.body)


def _missing(paths: Iterable[Path], above: Path, seen: set[Path]) -> set[str]:
    """Packages that are not installed, of these files and of those of lm-eval that they import."""
    found: set[str] = set()
    for path in paths:
        if path in seen or not path.is_file():
            continue
        seen.add(path)
        for module in _imports(ast.parse(path.read_text(encoding="utf-8")).body):
            if module.startswith("lm_eval."):
                found |= _missing([above / f"{module.replace('.', '/')}.py"], above, seen)
            elif (
                find_spec(module.partition(".")[0]) is None
                and not (path.parent / f"{module.partition('.')[0]}.py").is_file()
            ):
                found.add(module.partition(".")[0])
    return found


@cache
def _installed() -> TaskFiles | None:
    """lm-eval's own task files, found without importing it."""
    spec = find_spec("lm_eval")
    folders = spec.submodule_search_locations if spec else None
    return TaskFiles(Path(folders[0]) / "tasks") if folders else None


def check_tasks(suites: Mapping[str, dict[str, Any]], where: str, packages: bool = False) -> None:
    """Hold suites against lm-eval's task files and one's own, before any question is brought.

    Args:
        suites: config/suites.yaml.
        where: its path, for messages.
        packages: look for the packages that tasks import, too; those of a suite that nothing asks
            for need not be there.

    Raises:
        WildmergeError: lm-eval has no such task, the task can't be scored by its metric, few-shot
            examples would be taken from the questions that are asked, a file of one's own is
            missing or lacks a column, or a package is missing.
    """
    files = _installed()
    if files is None:
        return
    for suite, spec in suites.items():
        folder = spec.get("include_path")
        if folder and not Path(folder).is_dir():
            raise WildmergeError(
                f"{where}, suite {suite}: a folder of lm-eval's task files was expected at "
                f"{folder}, from the folder that the workflow runs in, found none. Correct "
                "`include_path`."
            )
        files = files.behind(folder)
        if {BITS} < {wanted["metric"] for wanted in spec["tasks"].values()}:
            raise WildmergeError(
                f"{where}, suite {suite}: tasks were expected whose mean says something, found "
                f"{BITS} beside fractions of questions. Put texts into a suite of their own."
            )
        for task, wanted in spec["tasks"].items():
            place = f"{where}, suite {suite}, task {task}"
            names = wanted.get("members") or [task]
            if "file" in wanted:
                _check_own(files, wanted, place)
                template = wanted.get("template")
                names = [template] if isinstance(template, str) else []
            for name in names:
                _check_name(files, name, place)
                for leaf, settings in files.leaves(name):
                    check_metric(leaf, settings, wanted["metric"], place)
                    if packages:
                        _check_packages(files, leaf, settings, place)
                    if wanted.get("num_fewshot") and "file" not in wanted:
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


def _check_packages(files: TaskFiles, leaf: str, settings: Mapping[str, Any], place: str) -> None:
    """Refuse a task whose own Python can't be imported."""
    if missing := files.missing(settings):
        raise WildmergeError(
            f"{place}: the packages that lm-eval's {leaf!r} imports were expected, found no "
            f"{', '.join(missing)}. Put what it needs into the environment: `pip install "
            f"'lm_eval[ifeval,math]=={version('lm_eval')}'` has it for ifeval and minerva_math. Or "
            "take the task out of the suite."
        )


def own_files(suite: Mapping[str, Any]) -> list[str]:
    """The files of this machine that a suite is made from, for the rule that makes it."""
    named = {task[key] for task in suite["tasks"].values() for key in FILES if key in task}
    if folder := suite.get("include_path"):
        files = TaskFiles(Path(folder))
        below = (path for path in Path(folder).rglob("*") if path.is_file())
        named |= {str(path) for path in below if "__pycache__" not in path.parts}
        named |= {data for path in files.paths for data in local_data(files.settings(path))}
    return sorted(named)


def _check_own(files: TaskFiles, wanted: Mapping[str, Any], place: str) -> None:
    """Look at a task that is a file of one's own: the file, its template and its metric."""
    check_file(wanted, place)
    template = wanted.get("template")
    if isinstance(template, str):
        found = [leaf for leaf, _ in files.leaves(template)]
        if found and found != [template]:
            raise WildmergeError(
                f"{place}: one task of lm-eval was expected as the template, found {template!r}, "
                f"which stands for {len(found)}. Name one of them."
            )
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
