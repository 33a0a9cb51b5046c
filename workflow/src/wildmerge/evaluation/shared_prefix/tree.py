"""Requests as one tree of tokens."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Queries that share one gathered set of keys: the path to the first of them, and the tile itself.
TILE = 32

Tokens = Sequence[int] | NDArray[np.integer]
Integers = NDArray[np.int64]


@dataclass
class Tree:
    """Token sequences as a prefix tree in depth-first order, U nodes for all distinct prefixes.

    Attributes:
        tokens: (U,) the node's token.
        depth: (U,) its position.
        end: (U,) one behind the last node of its subtree, so a is u or an ancestor of u just when
            a <= u < end[a].
        starts: (S + 1,) of each distinct sequence in order its first own node; U at the end.
        shared: (S,) the tokens it shares with the sequence before.
        lengths: (S,) its tokens.
        node: (P,) the scored nodes.
        target: (P,) the tokens expected after them.
        offsets: (R + 1,) where each request's begin among the scored nodes.
    """

    tokens: Integers
    depth: Integers
    end: Integers
    starts: Integers
    shared: Integers
    lengths: Integers
    node: Integers
    target: Integers
    offsets: Integers

    @classmethod
    def build(cls, requests: Iterable[tuple[Tokens, Tokens]], max_length: int) -> Tree:
        """Lay out requests.

        Args:
            requests: context tokens and answer tokens of each; too long ones lose tokens from the
                left, as in lm-eval.
            max_length: longest input of the model, in tokens.
        """
        rows, which, answers = _distinct(requests, max_length)
        lengths = np.array([len(row) for row in rows])
        shared = np.zeros(len(rows), dtype=np.int64)
        for i in range(1, len(rows)):
            least = min(lengths[i - 1], lengths[i])
            differ = rows[i - 1][:least] != rows[i][:least]
            shared[i] = differ.argmax() if differ.any() else least
        starts = np.concatenate([[0], np.cumsum(lengths - shared)])
        total = int(starts[-1])
        tokens = np.concatenate([row[s:] for row, s in zip(rows, shared, strict=True)])
        depth = np.concatenate([np.arange(s, n) for s, n in zip(shared, lengths, strict=True)])
        end = np.full(total, total)
        asked: list[list[int]] = [[] for _ in rows]
        for request, number in enumerate(which):
            asked[number].append(request)
        offsets = np.concatenate([[0], np.cumsum([len(answer) for answer in answers])])
        node = np.empty(offsets[-1], dtype=np.int64)
        path = np.empty(int(lengths.max()), dtype=np.int64)
        for i, length in enumerate(lengths):
            if i:
                end[path[shared[i] : lengths[i - 1]]] = starts[i]
            path[shared[i] : length] = np.arange(starts[i], starts[i + 1])
            for request in asked[i]:
                first, last = offsets[request], offsets[request + 1]
                node[first:last] = path[length - (last - first) : length]
        return cls(
            tokens, depth, end, starts, shared, lengths, node, np.concatenate(answers), offsets
        )

    def paths(self) -> Iterator[Integers]:
        """For node 0, TILE, 2 TILE, ... in turn: its ancestors, from the root down."""
        path = np.empty(int(self.lengths.max()), dtype=np.int64)
        sequence = -1
        for first in range(0, len(self.tokens), TILE):
            while self.starts[sequence + 1] <= first:
                sequence += 1
                start, stop = self.starts[sequence], self.starts[sequence + 1]
                path[self.shared[sequence] : self.lengths[sequence]] = np.arange(start, stop)
            yield path[: self.depth[first]].copy()


def _distinct(
    requests: Iterable[tuple[Tokens, Tokens]], max_length: int
) -> tuple[list[Integers], Integers, list[Integers]]:
    """The distinct inputs in order, and of each request the number of its input and its answer."""
    numbers: dict[bytes, int] = {}
    which: list[int] = []
    answers: list[Integers] = []
    # One-token choices of a question all have its prompt as their input.
    prompt: Tokens | None = None
    prompt_number: int | None = None
    for context, given in requests:
        answer = np.asarray(given, dtype=np.int64)
        if context is prompt and len(answer) == 1 and prompt_number is not None:
            number = prompt_number
        else:
            whole = np.concatenate([np.asarray(context, dtype=np.int64), answer])
            row = whole[-(max_length + 1) :][:-1]
            # Big-endian bytes sort as the tokens do.
            number = numbers.setdefault(row.astype(">u4").tobytes(), len(numbers))
            prompt, prompt_number = context, number if len(answer) == 1 else None
        which.append(number)
        answers.append(answer)
    ordered = sorted(numbers)
    place = np.empty(len(numbers), dtype=np.int64)
    rows = []
    for position, key in enumerate(ordered):
        place[numbers[key]] = position
        rows.append(np.frombuffer(key, dtype=">u4").astype(np.int64))
    return rows, place[which], answers
