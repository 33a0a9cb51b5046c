"""Score a model on a suite: lm-eval's prompts and backends, every question's outcome kept."""

from __future__ import annotations

import functools
import gc
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from wildmerge import WildmergeError, __version__
from wildmerge.files import atomic_file, json_digest, read_json, write_json
from wildmerge.study import GENERATION, MULTIPLE_CHOICE, TEXTS

from .asking import Asking, has_template, kind
from .datasets_cache import no_datasets_cache
from .outcomes import NEGATIVE_BITS, OUTCOMES, correct
from .prompts import tokenize, tokenizer_digest
from .requests import check_requests

if TYPE_CHECKING:
    from lm_eval.api.model import LM
    from lm_eval.models.huggingface import HFLM

    from wildmerge.tensors import Weights


def load_model(
    backend: str,
    model: str | Path,
    dtype: str,
    softmax_dtype: str | None,
    batch_size: int,
    device: str,
) -> HFLM:
    """Load a model into one of lm-eval's backends.

    Args:
        backend: lm-eval's name of it, `shared-prefix` (this project's) or `hf`.
        model: a checkpoint folder.
        dtype: of the weights.
        softmax_dtype: of log-probabilities, None for that of the weights.
        batch_size: requests a forward pass (`hf`).
        device: torch's name.

    Raises:
        WildmergeError: the folder lacks something.
    """
    from lm_eval.api.registry import get_model

    from .shared_prefix.backend import register_backend

    register_backend()
    try:
        return get_model(backend)(
            pretrained=str(model),
            dtype=dtype,
            softmax_dtype=softmax_dtype,
            batch_size=batch_size,
            device=device,
        )
    except (OSError, ValueError, KeyError) as error:
        raise WildmergeError(
            f"Expected {model} to be a whole checkpoint (config, safetensors, tokenizer) that "
            f"transformers can load, but it said: {error}. Look at the folder; delete it and run "
            f"again to have it made anew."
        ) from error


def load_generator(backend: str, model: str | Path, dtype: str, batch_size: int, device: str) -> LM:
    """Load a model into another of lm-eval's backends, for answers that are generated.

    Args:
        backend: lm-eval's name of it.
        model: a checkpoint folder.
        dtype: of the weights.
        batch_size: requests in one batch.
        device: torch's name.

    Raises:
        WildmergeError: lm-eval has no such backend, or what it needs is not installed.
    """
    from lm_eval.api.registry import get_model

    arguments = {"pretrained": str(model), "dtype": dtype}
    try:
        return get_model(backend).create_from_arg_obj(
            arguments, {"batch_size": batch_size, "device": device}
        )
    except (ImportError, ValueError, KeyError) as error:
        raise WildmergeError(
            f"Expected {backend} to be a backend of lm-eval {version('lm_eval')} that is installed "
            f"and takes {model}, but it said: {' '.join(str(error).split())[:300]}. Name another "
            f"under `generation_backend` in config/config.yaml, or install what it needs."
        ) from error


def evaluate(
    model: str | Path,
    suite: str | Path,
    prompts: str | Path,
    *,
    backend: str = "shared-prefix",
    generation_backend: str = "hf",
    batch_size: int = 16,
    dtype: str = "float16",
    softmax_dtype: str | None = None,
    device: str | None = None,
    resume: str | Path | None = None,
    digest: Callable[[Weights], str] | None = None,
) -> tuple[dict, pa.Table]:
    """Score a model on a suite.

    Args:
        model: a checkpoint folder.
        suite: folder made by `suites.fetch`.
        prompts: folder made by `prompts.tokenize`; a model with another tokenizer gets its own,
            made here.
        backend: see `load_model`.
        generation_backend: lm-eval's name of the backend that generates answers; `hf` takes the
            model that is loaded already.
        batch_size: see `load_model`.
        dtype: see `load_model`.
        softmax_dtype: see `load_model`.
        device: see `load_model`; None takes a GPU if there is one.
        resume: a folder in which finished tasks are kept until all are; a later call with the same
            model, prompts and settings starts behind them.
        digest: gives the digest of the model's weights, where it is known already; None reads them
            once more for it.

    Returns:
        The scores (what the score file holds but for base, subset, recipe and members) and the
        questions, one row each, as in OUTCOMES.

    Raises:
        WildmergeError: prompts of another suite, a folder that is no checkpoint, weights that are
            not numbers or are written to meanwhile, requests that no backend can answer.
    """
    import torch

    from wildmerge.tensors import Weights, unchanged, weights_digest

    began = time.perf_counter()
    suite, prompts = Path(suite), Path(prompts)
    spec = read_json(suite / "suite.json")
    rendered = _read_prompts(prompts, suite, spec)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    weights = Weights(model)
    generated = [t for t, entry in spec["tasks"].items() if kind(entry) == GENERATION]
    # What is loaded may be read from the file as late as it is used.
    with (
        unchanged([weights], f"Scoring {model}"),
        tempfile.TemporaryDirectory() as scratch,
    ):
        model_digest = (digest or weights_digest)(weights)
        lm = load_model(backend, model, dtype, softmax_dtype, batch_size, device)
        named = tokenizer_digest(lm.tokenizer, chat=has_template(spec))
        if named != rendered["tokenizer_digest"]:
            print(f"{model} has a tokenizer of its own: rendering its prompts anew.", flush=True)
            prompts = Path(scratch) / "prompts"
            tokenize(model, suite, prompts)
            rendered = read_json(prompts / "prompts.json")
        settings = {
            "backend": backend,
            "batch_size": batch_size,
            "dtype": dtype,
            "softmax_dtype": softmax_dtype or dtype,
            "device": lm.device.type,
            "model_digest": model_digest,
            "suite_digest": spec["digest"],
            "prompts_digest": rendered["digest"],
            "versions": {
                "wildmerge": __version__,
                **{name: version(name) for name in ("lm_eval", "transformers", "torch")},
            },
        }
        if generated:
            settings["generation_backend"] = generation_backend
        if "chat" in spec:
            settings["chat"] = spec["chat"]
        kept = _kept_tasks(resume, settings | {"clusters": spec.get("clusters")})
        scoring = _Scoring(suite, spec, prompts, rendered["distinct_tokens"], kept)
        load_seconds = time.perf_counter() - began
        others = [task for task in spec["tasks"] if task not in generated]
        scoring.run(lm, others)
        facts = {
            "softmax_dtype": softmax_dtype or _logits_dtype(lm),
            # Tokens a forward pass, where the backend counts in tokens.
            "batch_tokens": getattr(lm, "batch_tokens", None),
        }
        generator: LM = lm
        if scoring.left(generated) and generation_backend not in ("hf", backend):
            # Both would not always fit.
            del lm
            gc.collect()
            torch.cuda.empty_cache()
            generator = load_generator(generation_backend, model, dtype, batch_size, device)
        scoring.run(generator, generated)
    outcomes, costs = scoring.outcomes(), scoring.costs
    tasks = summarise(outcomes, spec["tasks"])
    for task, cost in costs.items():
        tasks[task] |= cost
    scores = {
        **settings,
        "softmax_dtype": facts["softmax_dtype"],
        # Of the hub: name -> commit.
        "datasets": spec.get("datasets", {}),
        "seconds": round(load_seconds + sum(cost["seconds"] for cost in costs.values()), 3),
        "load_seconds": round(load_seconds, 3),
        "batch_tokens": facts["batch_tokens"],
        "tasks": tasks,
        "accuracy": float(np.mean([entry["value"] for entry in tasks.values()])),
    }
    return scores, outcomes


def _logits_dtype(lm: HFLM) -> str:
    """The format in which the model gives logits, and lm-eval normalises and sums them."""
    import torch

    return str(lm._model_call(torch.zeros(1, 1, dtype=torch.int64, device=lm.device)).dtype)[6:]


def summarise(outcomes: pa.Table, tasks: Mapping[str, dict]) -> dict[str, dict]:
    """Reduce questions to tasks.

    Args:
        outcomes: as in OUTCOMES.
        tasks: the `tasks` of a suite.json.

    Returns:
        Task -> metric, value (fraction, or bits a byte with a minus; mean over all questions),
        stderr, questions, diverged (whether some log-likelihoods are not finite), num_fewshot,
        version, and for each leaf task of lm-eval its own value and number of questions.
    """
    frame = outcomes.select(["task", "member", "correct"]).to_pandas()
    finite = np.isfinite(pc.list_flatten(outcomes["loglikelihoods"]).to_numpy())
    question = pc.list_parent_indices(outcomes["loglikelihoods"]).to_numpy()
    diverged = set(frame["task"].iloc[np.unique(question[~finite])])
    summary = {}
    for task, entry in tasks.items():
        rows = frame[frame["task"] == task]
        groups = {
            member: rows.loc[rows["member"] == member, "correct"].to_numpy(np.float64)
            for member in entry["members"]
        }
        versions = {str(leaf["version"]) for leaf in entry["members"].values()}
        summary[task] = {
            "metric": NEGATIVE_BITS if kind(entry) == TEXTS else entry["metric"],
            "value": float(np.mean(np.concatenate(list(groups.values())))),
            "stderr": _stderr(list(groups.values())),
            "questions": len(rows),
            "diverged": task in diverged,
            "num_fewshot": entry["num_fewshot"],
            "version": ",".join(sorted(versions)),
            "members": {
                member: {"value": float(group.mean()), "questions": len(group)}
                for member, group in groups.items()
            },
        }
    return summary


def _stderr(groups: Sequence[NDArray[np.float64]]) -> float | None:
    """lm-eval's standard error of the mean over all questions, variance pooled within members."""
    total = sum(len(group) for group in groups)
    if total == len(groups):
        return None
    squares = sum(float(((group - group.mean()) ** 2).sum()) for group in groups)
    return (squares / (total - len(groups)) / total) ** 0.5


def _read_prompts(prompts: Path, suite: Path, spec: Mapping[str, Any]) -> dict:
    """Read prompts.json; raise WildmergeError if the prompts are of another suite or release."""
    rendered = read_json(prompts / "prompts.json")
    of_now = rendered["lm_eval"] == version("lm_eval") and "clusters" in rendered
    same = rendered.get("clusters") == spec.get("clusters", {})
    if rendered["suite_digest"] != spec["digest"] or not of_now or not same:
        raise WildmergeError(
            f"Expected the prompts in {prompts} to be rendered from the questions in {suite} by "
            f"this release and lm-eval {version('lm_eval')}, but one of them is older. Delete "
            f"{prompts} and run again."
        )
    return rendered


class _Scoring:
    """The tasks of a suite, asked one by one; what an earlier run has finished is not asked again.

    Args:
        suite: folder made by `suites.fetch_suite`.
        spec: its suite.json.
        prompts: folder of the tokenised prompts.
        sizes: task -> distinct tokens of its prompts, for multiple choice.
        kept: folder of finished tasks; None to keep none.

    Attributes:
        costs: task -> seconds and tokens.
    """

    def __init__(
        self,
        suite: Path,
        spec: Mapping[str, Any],
        prompts: Path,
        sizes: Mapping[str, int],
        kept: Path | None,
    ):
        self.costs: dict[str, dict] = {}
        self._suite, self._spec, self._prompts, self._sizes = suite, spec, prompts, sizes
        self._tasks: Mapping[str, dict] = spec["tasks"]
        self._files = {task: kept / f"{task}.parquet" if kept else None for task in self._tasks}
        self._tables: dict[str, pa.Table] = {}
        for task, file in self._files.items():
            if file and file.exists():
                print(f"{task}: kept from an earlier run.", flush=True)
                self._take(task, pq.ParquetFile(file).read())

    def _take(self, task: str, table: pa.Table) -> None:
        self._tables[task] = table.replace_schema_metadata(None)
        self.costs[task] = json.loads(table.schema.metadata[b"cost"])

    @functools.cached_property
    def _asking(self) -> Asking:
        return Asking(self._suite, self._spec)

    def left(self, tasks: Iterable[str]) -> list[str]:
        """Those that have not been asked."""
        return [task for task in tasks if task not in self._tables]

    def run(self, lm: LM, tasks: Iterable[str]) -> None:
        """Ask a model what is left of some tasks."""
        left = self.left(tasks)
        tokens = {task: self._sizes.get(task, 0) for task in left}
        began, asked = time.perf_counter(), 0
        for task in left:
            print(f"{task} ({len(self._tables) + 1} of {len(self._tasks)})", flush=True)
            table = self._score(lm, task)
            if file := self._files[task]:
                with atomic_file(file) as part:
                    pq.write_table(table, part)
            self._take(task, table)
            asked += tokens.pop(task)
            speed = asked / (time.perf_counter() - began)
            print(
                f"{len(self._tables)} of {len(self._tasks)} tasks done"
                + (
                    f", {speed:.0f} distinct tokens/s; {sum(tokens.values())} tokens left, "
                    f"{sum(tokens.values()) / speed:.0f} s"
                    if asked
                    else ""
                ),
                flush=True,
            )

    def _score(self, lm: LM, task: str) -> pa.Table:
        """Ask one task; its outcomes, with what it cost in the table's metadata."""
        entry = self._tasks[task]
        start, before = time.perf_counter(), _tokens(lm)
        if kind(entry) == MULTIPLE_CHOICE:
            # read_table would import pyarrow's datasets.
            rows = pq.ParquetFile(self._prompts / f"{task}.parquet").read()
            table = _score_task(lm, task, entry["metric"], rows)
        else:
            with no_datasets_cache():
                table = self._asking.ask(lm, task, entry)
        if not np.isfinite(pc.list_flatten(table["loglikelihoods"]).to_numpy()).all():
            _check_weights(lm, task)
        cost = {
            "seconds": round(time.perf_counter() - start, 3),
            # Why the task ran as `hf`, where the backend is another.
            "obstacle": None if kind(entry) == GENERATION else getattr(lm, "obstacle", None),
        } | {key: value - before[key] for key, value in _tokens(lm).items()}
        return table.replace_schema_metadata({"cost": json.dumps(cost)})

    def outcomes(self) -> pa.Table:
        """All questions in the suite's order, as in OUTCOMES, or OUTCOMES_WITH_TEXT."""
        tables = [self._tables[task] for task in self._tasks]
        return pa.concat_tables(tables, promote_options="default")


def _check_weights(lm: LM, task: str) -> None:
    """Tell weights that are no numbers, an error, from logits that overflow, a result."""
    import torch

    from .shared_prefix.precision import not_finite

    model = getattr(lm, "model", None)
    if not isinstance(model, torch.nn.Module):
        return
    if tensor := not_finite(model):
        raise WildmergeError(
            f"Expected weights that are numbers, but {tensor} of the model holds some that are "
            f"not, and so has task {task!r} no finite log-likelihoods. Look at the log and "
            f"summary.json of the merge that wrote them; delete its folder and run again."
        )
    print(f"{task}: diverged, logits are not finite in {model.dtype}.", flush=True)


def _score_task(lm: HFLM, task: str, metric: str, prompts: pa.Table) -> pa.Table:
    """Ask one task; one row a question, as in OUTCOMES.

    Finite weights whose logits overflow are a result: the model has diverged, and no question of
    the task is right.
    """
    from .shared_prefix.backend import SharedPrefixLM

    requests = _requests(prompts, lists=not isinstance(lm, SharedPrefixLM))
    asked = ((context, answer) for _, context, answer in requests)
    check_requests(asked, f"task {task!r}", lm.max_length)
    values = [value for value, _ in lm._loglikelihood_tokens(requests)]
    diverged = not np.isfinite(values).all()
    rows, at = [], 0
    for row in prompts.drop_columns(["contexts", "answers"]).to_pylist():
        loglikelihoods = values[at : at + len(row["lengths"])]
        at += len(loglikelihoods)
        rows.append(
            {
                "task": task,
                "member": row["member"],
                "doc": row["doc"],
                "correct": 0.0
                if diverged
                else correct(metric, loglikelihoods, row["lengths"], row["target"]),
                "target": row["target"],
                "loglikelihoods": loglikelihoods,
                "lengths": row["lengths"],
                "cluster": row["cluster"],
            }
        )
    return pa.Table.from_pylist(rows, OUTCOMES)


def _requests(prompts: pa.Table, lists: bool) -> list[tuple]:
    """What lm-eval's backends score: (None, context tokens, answer tokens), a row a choice.

    Args:
        prompts: a task's, as `prompts.tokenize` writes them.
        lists: tokens as lists, as `hf` wants them; else as arrays.
    """
    requests: list[tuple] = []
    for contexts, answers in zip(prompts["contexts"], prompts["answers"], strict=True):
        contexts = [context.values.to_numpy() for context in contexts]
        answers = [answer.values.to_numpy() for answer in answers]
        if lists:
            contexts = [context.tolist() for context in contexts]
            answers = [answer.tolist() for answer in answers]
        if len(contexts) == 1:
            contexts = contexts * len(answers)
        requests += [(None, *pair) for pair in zip(contexts, answers, strict=True)]
    return requests


def _tokens(lm: LM) -> dict[str, int]:
    """Tokens so far, where the backend counts them: of all requests, distinct prefixes, run."""
    kinds = ("asked", "distinct", "run")
    return {f"tokens_{k}": getattr(lm, f"tokens_{k}") for k in kinds if hasattr(lm, f"tokens_{k}")}


def _kept_tasks(folder: str | Path | None, settings: dict) -> Path | None:
    """The folder of finished tasks, emptied if it is of another model or other settings."""
    if folder is None:
        return None
    folder, key = Path(folder), {"settings": json_digest(settings)}
    if folder.exists() and read_json(folder / "settings.json") != key:
        shutil.rmtree(folder)
    if not folder.exists():
        folder.mkdir(parents=True)
        write_json(folder / "settings.json", key)
    return folder
