"""Tasks that lm-eval itself asks: generated answers, texts, last words.

Multiple choice is rendered once for all models of a tokenizer (`prompts`). Here lm-eval renders,
asks, filters and measures, model by model; every question's outcome and text is taken from its
samples, and its own value of the metric is the check.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from wildmerge import WildmergeError
from wildmerge.study import GENERATION, MULTIPLE_CHOICE, TEXTS

from .outcomes import (
    BITS_IN_A_BYTE,
    NO_CHOICE,
    OUTCOMES_WITH_TEXT,
    cluster_of,
    number_clusters,
)

if TYPE_CHECKING:
    from lm_eval.api.model import LM
    from lm_eval.api.task import Task
    from lm_eval.tasks import TaskManager


def kind(entry: Mapping[str, Any]) -> str:
    """How a task of suite.json is asked."""
    asked: str = entry.get("kind", MULTIPLE_CHOICE)
    return asked


def load_tasks(suite: Path, spec: Mapping[str, Any]) -> tuple[TaskManager, dict[str, Task]]:
    """All leaf tasks of a suite as lm-eval's command line loads them: (manager, by name)."""
    from lm_eval.defaults import DEFAULT_RANDOM_SEED
    from lm_eval.tasks import TaskManager

    leaves = [leaf for task in spec["tasks"].values() for leaf in task["members"]]
    manager = TaskManager(include_path=str(suite / "tasks"), include_defaults=False)
    # Some tasks shuffle choices as they load; lm-eval's command line has seeded them by then.
    random.seed(DEFAULT_RANDOM_SEED)
    return manager, manager.load(leaves)["tasks"]


def has_template(spec: Mapping[str, Any]) -> bool:
    """Whether a suite's prompts depend on the chat template of a tokenizer."""
    return bool(spec.get("chat", {}).get("chat_template"))


def chat_arguments(spec: Mapping[str, Any]) -> dict[str, Any]:
    """lm-eval's arguments for a suite's chat template; none where it has none."""
    chat = spec.get("chat")
    if not chat:
        return {}
    templated = chat.get("chat_template", False)
    return {
        "apply_chat_template": templated,
        "system_instruction": chat.get("system_instruction"),
        "fewshot_as_multiturn": chat.get("fewshot_as_multiturn", templated),
    }


class Asking:
    """lm-eval's tasks of a suite, to be asked one by one.

    Args:
        suite: folder made by `suites.fetch_suite`.
        spec: its suite.json.
    """

    def __init__(self, suite: Path, spec: Mapping[str, Any]):
        self._chat = chat_arguments(spec)
        self._clusters = spec.get("clusters", {})
        self._manager, self._loaded = load_tasks(suite, spec)

    def ask(self, lm: LM, task: str, entry: Mapping[str, Any]) -> pa.Table:
        """Ask a model one task; one row a question, as in OUTCOMES_WITH_TEXT.

        Args:
            lm: the model.
            task: its name.
            entry: what suite.json says of it.

        Raises:
            WildmergeError: its metric is no number a question, or lm-eval's value is another.
        """
        from lm_eval import simple_evaluate

        metric, kept = entry["result"]
        if kind(entry) == GENERATION:
            for leaf in entry["members"]:
                _check_room(lm, task, self._loaded[leaf])
        with _overflows(lm) as overflowed:
            results = simple_evaluate(
                lm,
                tasks=[self._loaded[leaf] for leaf in entry["members"]],
                task_manager=self._manager,
                bootstrap_iters=0,
                **self._chat,
            )
        rows: list[dict[str, Any]] = []
        measured: list[Any] = []
        for leaf in entry["members"]:
            # Where a filter gives several outcomes, the named one counts.
            samples = [s for s in results["samples"][leaf] if s["filter"] == kept]
            for sample in sorted(samples, key=lambda sample: sample["doc_id"]):
                answer = sample["resps"][0][0]
                measured.append(sample[metric])
                cluster = cluster_of(sample["doc"], self._clusters.get(task, []), leaf)
                rows.append(
                    {"task": task, "member": leaf, "doc": sample["doc_id"], "target": NO_CHOICE}
                    | {"cluster": cluster, "lengths": []}
                    | (
                        {"text": answer, "loglikelihoods": []}
                        if kind(entry) == GENERATION
                        else {"loglikelihoods": [np.ravel(answer)[0]]}
                    )
                )
        number_clusters(rows)
        diverged = (
            bool(overflowed)
            or not np.isfinite([v for r in rows for v in r["loglikelihoods"]]).all()
        )
        if kind(entry) == TEXTS:
            values = _of_texts(measured)
        else:
            values = [_number(value, task, metric) for value in measured]
        if diverged:
            # As if it knew nothing.
            values = [-BITS_IN_A_BYTE if kind(entry) == TEXTS else 0.0] * len(rows)
        elif len(entry["members"]) == 1 or kind(entry) != TEXTS:
            _check(values, rows, results["results"], f"{metric},{kept}", task)
        for row, value in zip(rows, values, strict=True):
            row["correct"] = value
            if diverged and not row["loglikelihoods"]:
                row["loglikelihoods"] = [math.nan]
        return pa.Table.from_pylist(rows, OUTCOMES_WITH_TEXT)


def _check_room(lm: LM, task: str, leaf: Task) -> None:
    """Raise WildmergeError where an answer alone fills the model's longest input."""
    given = leaf.get_config("generation_kwargs") or {}
    longest = given.get("max_gen_toks", getattr(lm, "max_gen_toks", 0))
    window = getattr(lm, "max_length", None)
    if isinstance(window, int) and longest >= window:
        raise WildmergeError(
            f"Expected answers to task {task!r} that leave room for a question, but they may have "
            f"{longest} tokens and the model's longest input has {window}. Say less under "
            "`generation_kwargs: {max_gen_toks: ...}`, or take the task out of the suite."
        )


def _number(value: Any, task: str, metric: str) -> float:
    if not isinstance(value, bool | int | float | np.number | np.bool_) or not math.isfinite(value):
        raise WildmergeError(
            f"Expected {metric} of task {task!r} to be a number a question, but it is {value!r}. "
            "Take the task out of the suite, or name another of its metrics."
        )
    return float(value)


def _check(
    values: Sequence[float],
    rows: Sequence[Mapping[str, Any]],
    results: Mapping[str, Mapping[str, Any]],
    key: str,
    task: str,
) -> None:
    """Raise WildmergeError where lm-eval's value of a leaf task is no mean over its questions."""
    for leaf in dict.fromkeys(row["member"] for row in rows):
        mean = float(np.mean([v for v, r in zip(values, rows, strict=True) if r["member"] == leaf]))
        if not math.isclose(abs(mean), results[leaf][key], rel_tol=1e-9, abs_tol=1e-9):
            raise WildmergeError(
                f"Expected lm-eval's {key} of {leaf!r} (task {task!r}) to be the mean over its "
                f"questions, {mean:.6f}, but it is {results[leaf][key]:.6f}. Take the task out of "
                "the suite, or name another of its metrics."
            )


def _of_texts(measured: Sequence[tuple[float, int]]) -> list[float]:
    """A number a document, higher is better, whose mean is lm-eval's bits a byte with a minus.

    Bits a byte is a ratio of sums, bits over bytes. Its share of a document is the ratio and what
    the document has beyond it, its bits less the ratio times its bytes, over the mean bytes: the
    mean of these is the ratio, and their spread is that of the ratio over other documents (the
    linearisation of a ratio estimator), also for the difference of two models.

    Args:
        measured: log-likelihood and bytes of each document.
    """
    nats, size = np.array(measured, dtype=np.float64).T
    bits = -nats / math.log(2)
    ratio = bits.sum() / size.sum()
    shares: list[float] = (-(ratio + (bits - ratio * size) / size.mean())).tolist()
    return shares


@contextmanager
def _overflows(lm: LM) -> Iterator[list[bool]]:
    """Watch a model's logits where a token is chosen; what is given holds True if some overflow."""
    import torch

    found: list[bool] = []
    model = getattr(lm, "model", None)
    if not isinstance(model, torch.nn.Module):
        yield found
        return
    flags: list[torch.Tensor] = []

    def look(_module: Any, _inputs: Any, output: Any) -> None:
        logits = getattr(output, "logits", None)
        if logits is not None:
            flags[:] = [torch.stack([*flags, ~logits[:, -1].isfinite().all()]).any()]

    handle = model.register_forward_hook(look)
    try:
        yield found
    finally:
        handle.remove()
        found += [True for flag in flags if bool(flag)]
