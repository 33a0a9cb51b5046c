"""What a request for a log-likelihood must be, whichever backend answers it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from wildmerge import WildmergeError

Tokens = Sequence[int] | NDArray[np.integer]


def check_requests(
    requests: Iterable[tuple[Tokens, Tokens]], where: str, max_length: int | None = None
) -> None:
    """Refuse what has no log-likelihood; lm-eval's hf backend asserts the same.

    Args:
        requests: context tokens and answer tokens of each.
        where: names them in the message.
        max_length: longest input of the model, in tokens; None where no model is there yet.

    Raises:
        WildmergeError: a context or an answer without tokens, or an answer longer than the input
            may be.
    """
    for number, (context, answer) in enumerate(requests):
        if not len(context) or not len(answer):
            raise WildmergeError(
                f"Expected a context and an answer of one token or more in every request, but "
                f"request {number} of {where} has {len(context)} and {len(answer)}: it is empty, "
                f"or the tokenizer merges the answer into the context. Look at the question's "
                f"choices and at the task's delimiter."
            )
        if max_length is not None and len(answer) > max_length:
            raise WildmergeError(
                f"Expected answers of {max_length} tokens at most, the longest input of the "
                f"model, but that of request {number} of {where} has {len(answer)}. Take the task "
                f"out of the suite, or a model with a longer context."
            )
