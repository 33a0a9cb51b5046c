"""A question's outcome: what is kept of every question, and what counts as right."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from wildmerge import WildmergeError
from wildmerge.files import json_digest

# One row a question: `task` of the suite, `member` is lm-eval's leaf task, `doc` the question's
# number in it, `correct` 1 or 0, `target` the index of the right choice (NO_CHOICE where the
# published answer is none of them), `loglikelihoods` a choice and `lengths` of the choices in
# characters. Questions of a task with the same `cluster` depend on each other.
NO_CHOICE = -1
OUTCOMES = pa.schema(
    [
        ("task", pa.dictionary(pa.int16(), pa.string())),
        ("member", pa.dictionary(pa.int16(), pa.string())),
        ("doc", pa.int32()),
        ("correct", pa.float32()),
        ("target", pa.int16()),
        ("loglikelihoods", pa.list_(pa.float32())),
        ("lengths", pa.list_(pa.int32())),
        ("cluster", pa.int32()),
    ]
)

# Where answers are generated: with the text, `target` NO_CHOICE, no log-likelihoods. Texts have one
# log-likelihood a document, and `correct` is bits a byte with a minus, so that more is better.
OUTCOMES_WITH_TEXT = OUTCOMES.append(pa.field("text", pa.string()))
NEGATIVE_BITS = "negative_bits_per_byte"
BITS_IN_A_BYTE = 8.0

# The part that tells who was right on which question, with the names spelled out.
COMPARED_OUTCOMES = pa.schema(
    [
        ("task", pa.string()),
        ("member", pa.string()),
        ("doc", pa.int32()),
        ("cluster", pa.int32()),
        ("correct", pa.float32()),
    ]
)


def correct(
    metric: str, loglikelihoods: Sequence[float], lengths: Sequence[int], target: int
) -> float:
    """Whether a multiple-choice question was answered right, as lm-eval counts it.

    Args:
        metric: `acc` or `acc_norm`.
        loglikelihoods: of each choice.
        lengths: of each choice, in characters.
        target: index of the right choice, NO_CHOICE for none.

    Returns:
        1.0 or 0.0; the first of equal choices wins, and an empty one never by `acc_norm`.
    """
    values = np.asarray(loglikelihoods, dtype=np.float64)
    if metric == "acc_norm":
        with np.errstate(divide="ignore"):
            values = values / np.asarray(lengths, dtype=np.float64)
    return float(np.argmax(values) == target)


def cluster_of(doc: Mapping[str, Any], columns: Sequence[str], leaf: str) -> str | None:
    """What a question shares with those that depend on it, as text; None where it stands alone.

    Raises:
        WildmergeError: the question has no such column.
    """
    if missing := [name for name in columns if name not in doc]:
        raise WildmergeError(
            f"Expected the questions of lm-eval's task {leaf!r} to have the columns that `cluster` "
            f"names in config/suites.yaml, but they have no {', '.join(missing)}; their columns "
            f"are {', '.join(doc)}. Correct `cluster`."
        )
    return json_digest([doc[name] for name in columns]) if columns else None


def number_clusters(rows: list[dict[str, Any]]) -> None:
    """Number the clusters of a task from 0; a question that stands alone is one of its own."""
    numbers: dict[object, int] = {}
    for place, row in enumerate(rows):
        key = place if row["cluster"] is None else row["cluster"]
        row["cluster"] = numbers.setdefault(key, len(numbers))
