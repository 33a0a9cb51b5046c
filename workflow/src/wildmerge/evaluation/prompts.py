"""Prompts of a suite, rendered by lm-eval and tokenised once for all models of a tokenizer.

lm-eval itself renders, tokenises and scores here; only the model is missing. What its hf backend
would be handed is kept, one Parquet file a task, one row a question.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wildmerge import WildmergeError
from wildmerge.files import atomic_folder, json_digest, read_json, write_json
from wildmerge.study import MULTIPLE_CHOICE

from .asking import chat_arguments, has_template, kind, load_tasks
from .datasets_cache import no_datasets_cache
from .outcomes import NO_CHOICE, cluster_of, correct, number_clusters
from .requests import check_requests

if TYPE_CHECKING:
    from lm_eval.api.task import ConfigurableTask
    from transformers import PreTrainedTokenizerBase


def offline() -> None:
    """Switch the hub off for this process; call it before lm-eval or transformers is imported."""
    for switch in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"):
        os.environ[switch] = "1"
    os.environ["TOKENIZERS_PARALLELISM"] = "false"


def tokenizer_digest(tokenizer: PreTrainedTokenizerBase, chat: bool = False) -> str:
    """Name a tokenizer by what decides its tokens, whatever its files look like.

    Fine-tuned checkpoints often bring the base's tokenizer with a chat template or settings of
    their own; those don't count here, vocabulary, merges, added tokens, normalisation and the
    special tokens that lm-eval puts in front do.

    Args:
        tokenizer: of transformers.
        chat: whether its chat template counts, too.

    Raises:
        WildmergeError: it has no chat template, and one is wanted.
    """
    if chat and not tokenizer.chat_template:
        raise WildmergeError(
            f"Expected the tokenizer of {tokenizer.name_or_path} to have a chat template, as the "
            f"suite's chat_template wants, but it has none. Drop that key from the suite, or take "
            f"a base and checkpoints that have one."
        )
    fast = getattr(tokenizer, "backend_tokenizer", None)
    if fast is None:
        rules = sorted(tokenizer.get_vocab().items())
    else:
        # Set by each call, no part of the tokenizer.
        fast.no_truncation()
        fast.no_padding()
        rules = fast.to_str()
    special = [tokenizer.bos_token_id, tokenizer.eos_token_id]
    kind = type(tokenizer).__name__ if fast is None else ""
    return json_digest([kind, rules, special, *([tokenizer.chat_template] if chat else [])])


def _recorder(model: Path) -> Any:
    """lm-eval's hf backend without a model: it keeps the tokens that it is asked to score."""
    import numpy as np
    import torch
    from lm_eval.models.huggingface import HFLM

    class NoModel(torch.nn.Module):
        def tie_weights(self) -> None:
            pass

    class Recorder(HFLM):
        def _create_model(self, *args: Any, **kwargs: Any) -> None:
            self._model = NoModel()

        def _loglikelihood_tokens(
            self, requests: Sequence[tuple], **kwargs: Any
        ) -> list[tuple[float, bool]]:
            self.tokens = {pair: (context, answer) for pair, context, answer in requests}
            # Any values do: they only show that lm-eval and `correct` agree on them.
            self.values = -np.random.default_rng(0).gamma(4.0, 5.0, len(requests))
            return [(float(value), False) for value in self.values]

    return Recorder(pretrained=str(model), device="cpu")


def _questions(
    task: ConfigurableTask,
    samples: Sequence[dict],
    tokens: dict[tuple[str, str], tuple[list[int], list[int]]],
    metric: str,
    cluster: Sequence[str],
) -> Iterator[dict]:
    """Rows of one leaf task; lm-eval's own score of the recorder's values is the check.

    A row's `cluster` is what the question has in the columns of that name, None without any.
    """
    for sample in samples:
        choices = task.doc_to_choice(sample["doc"])
        lengths = [len(choice) for choice in choices]
        gold = task.doc_to_text(sample["doc"]) if task.multiple_input else sample["target"]
        if isinstance(gold, str):
            gold = choices.index(gold) if gold in choices else NO_CHOICE
        elif isinstance(gold, int) and not 0 <= gold < len(choices):
            gold = NO_CHOICE
        values = [float(response[0][0]) for response in sample["resps"]]
        if (
            not isinstance(gold, int)
            or len(values) != len(choices)
            or correct(metric, values, lengths, gold) != sample.get(metric)
        ):
            raise WildmergeError(
                f"Expected lm-eval's task {task.task_name!r} to score a question by the most "
                f"likely of its choices, as {metric} is defined for multiple choice, but question "
                f"{sample['doc_id']} is scored otherwise (by its own rule, several right answers, "
                f"or extra requests). Take the task out of the suite."
            )
        pairs = [tokens[tuple(pair)] for pair in sample["arguments"]]
        check_requests(pairs, f"question {sample['doc_id']} of lm-eval's task {task.task_name!r}")
        contexts = [context for context, _ in pairs]
        shared = all(context == contexts[0] for context in contexts)
        yield {
            "member": task.task_name,
            "doc": sample["doc_id"],
            "target": gold,
            "lengths": lengths,
            "contexts": contexts[:1] if shared else contexts,
            "answers": [answer for _, answer in pairs],
            "cluster": cluster_of(sample["doc"], cluster, task.task_name),
        }


def _distinct_tokens(rows: list[dict]) -> int:
    """How many distinct prefixes a task's requests have: the tokens that a model must run."""
    from .shared_prefix.tree import Tree

    requests: list[tuple[list[int], list[int]]] = []
    for row in rows:
        contexts, answers = row["contexts"], row["answers"]
        contexts = contexts * len(answers) if len(contexts) == 1 else contexts
        requests += zip(contexts, answers, strict=True)
    return len(Tree.build(requests, max_length=1 << 30).tokens)


def tokenize(model: str | Path, suite: str | Path, folder: str | Path) -> None:
    """Render and tokenise all prompts of a suite's multiple choice.

    Args:
        model: folder with the tokenizer (and config) of a checkpoint; no weights are read.
        suite: folder made by `suites.fetch`.
        folder: where to, whole or not there: `prompts.json`, and `<task>.parquet` with columns
            member, doc, target (the right choice), lengths (choices,) in characters, contexts (1
            or choices, tokens), answers (choices, tokens) and cluster (its number in the task;
            questions that share the columns of the suite's key `cluster` have the same).

    Raises:
        WildmergeError: a task scores its questions in a way that `outcomes.correct` does not
            repeat, or has a choice without tokens.
    """
    import logging

    import pyarrow as pa
    import pyarrow.parquet as pq
    from lm_eval import simple_evaluate

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    suite = Path(suite)
    spec = read_json(suite / "suite.json")
    if spec["lm_eval"] != version("lm_eval"):
        raise WildmergeError(
            f"Expected the questions in {suite} to be those of the installed lm-eval "
            f"{version('lm_eval')}, but they were fetched for {spec['lm_eval']}. Delete the "
            f"folder and run again."
        )
    schema = pa.schema(
        [
            ("member", pa.dictionary(pa.int16(), pa.string())),
            ("doc", pa.int32()),
            ("target", pa.int16()),
            ("lengths", pa.list_(pa.int32())),
            ("contexts", pa.list_(pa.list_(pa.int32()))),
            ("answers", pa.list_(pa.list_(pa.int32()))),
            ("cluster", pa.int32()),
        ]
    )
    lm = _recorder(Path(model))
    named = tokenizer_digest(lm.tokenizer, chat=has_template(spec))
    chosen = {t: entry for t, entry in spec["tasks"].items() if kind(entry) == MULTIPLE_CHOICE}
    with atomic_folder(folder) as part, no_datasets_cache():
        # All of them, as lm-eval's command line does; the others are asked as they are.
        manager, loaded = load_tasks(suite, spec)
        leaves = [leaf for task in chosen.values() for leaf in task["members"]]
        results: Any = {"samples": {}}
        if leaves:
            results = simple_evaluate(
                lm,
                tasks=[loaded[leaf] for leaf in leaves],
                task_manager=manager,
                bootstrap_iters=0,
                **chat_arguments(spec),
            )
        tasks, sizes = {}, {}
        for task, entry in chosen.items():
            rows = [
                row
                for leaf in entry["members"]
                for row in _questions(
                    loaded[leaf],
                    results["samples"][leaf],
                    lm.tokens,
                    entry["metric"],
                    spec.get("clusters", {}).get(task, []),
                )
            ]
            # The digest is that of what a model is asked.
            digest = json_digest([{k: v for k, v in r.items() if k != "cluster"} for r in rows])
            number_clusters(rows)
            pq.write_table(
                pa.Table.from_pylist(rows, schema), part / f"{task}.parquet", compression="zstd"
            )
            sizes[task] = _distinct_tokens(rows)
            tasks[task] = {
                "questions": len(rows),
                "requests": sum(len(row["answers"]) for row in rows),
                "digest": digest,
            }
        content = {
            "suite_digest": spec["digest"],
            "tokenizer_digest": named,
            "lm_eval": spec["lm_eval"],
            "tasks": tasks,
        }
        write_json(
            part / "prompts.json",
            {
                **content,
                "digest": json_digest(content),
                "distinct_tokens": sizes,
                "clusters": spec.get("clusters", {}),
            },
        )
