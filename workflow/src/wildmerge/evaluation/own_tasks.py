"""Questions and texts of one's own as tasks of lm-eval."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from wildmerge import WildmergeError
from wildmerge.study import BITS, read_task

_MEAN = {"aggregation": "mean", "higher_is_better": True}
_MULTIPLE_CHOICE = {
    "output_type": "multiple_choice",
    "doc_to_text": "Question: {{question}}\nAnswer:",
    "doc_to_choice": "choices",
    "doc_to_target": "answer",
    "metric_list": [{"metric": "acc"} | _MEAN, {"metric": "acc_norm"} | _MEAN],
}
# A short answer, compared as lm-eval compares them.
_SHORT_ANSWER = {
    "output_type": "generate_until",
    "doc_to_text": "Question: {{question}}\nAnswer:",
    "doc_to_target": "answer",
    "generation_kwargs": {"until": ["\n"], "do_sample": False, "max_gen_toks": 32},
    "filter_list": [
        {
            "name": "none",
            "filter": [
                {"function": "remove_whitespace"},
                {"function": "take_first"},
            ],
        }
    ],
    "metric_list": [
        {"metric": "exact_match", "ignore_case": True, "ignore_punctuation": True} | _MEAN
    ],
}
_TEXT = {
    "output_type": "loglikelihood_rolling",
    "doc_to_text": "",
    "doc_to_target": "text",
    "metric_list": [{"metric": BITS, "aggregation": BITS, "higher_is_better": False}],
}


def own_config(task: str, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """What lm-eval's task file says of a file of one's own, without a template of lm-eval.

    Args:
        task: its name.
        wanted: its entry in suites.yaml.
    """
    kinds: dict[str, dict[str, Any]] = {BITS: _TEXT, "exact_match": _SHORT_ANSWER}
    given = wanted.get("template", {})
    splits = {"test_split": "test"} | (
        {"fewshot_split": "examples"} if "examples" in wanted else {}
    )
    return {
        "task": task,
        **splits,
        **kinds.get(wanted["metric"], _MULTIPLE_CHOICE),
        **given,
        "metadata": {"version": 1.0},
    }


def with_template(config: dict[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    """lm-eval's task file for another's questions: its own, but for the split of examples.

    Args:
        config: lm-eval's own, with its `path`.
        wanted: the entry in suites.yaml.
    """
    taken = {config.get("test_split") or config["validation_split"]}
    examples = config.get("fewshot_split") or config.get("training_split") or "examples"
    if "examples" in wanted and examples in taken:
        examples = "examples"
    return config | ({"fewshot_split": examples} if "examples" in wanted else {})


def own_tables(
    config: Mapping[str, Any], wanted: Mapping[str, Any], columns: set[str]
) -> dict[str, pa.Table]:
    """The questions of a task of one's own: split -> table.

    Args:
        config: what its task file says.
        wanted: its entry in suites.yaml.
        columns: that its templates read.

    Raises:
        WildmergeError: a row is no question, or a column that the templates read is not there.
    """
    split = config.get("test_split") or config["validation_split"]
    files = {split: wanted["file"]}
    if "examples" in wanted:
        files[config["fewshot_split"]] = wanted["examples"]
    tables = {}
    for name, file in files.items():
        rows = read_task(Path(file), wanted)
        if missing := sorted(columns - set(rows[0])):
            raise WildmergeError(
                f"Expected the columns that the template of task {config['task']!r} reads in "
                f"{file}, but it has no {', '.join(missing)}; its columns are "
                f"{', '.join(rows[0])}. Correct the template, or name other columns in it."
            )
        try:
            tables[name] = pa.Table.from_pylist(rows)
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise WildmergeError(
                f"Expected every column of {file} to hold values of one kind in all rows, but "
                f"{' '.join(str(error).split())}. Correct the file."
            ) from error
    return tables
