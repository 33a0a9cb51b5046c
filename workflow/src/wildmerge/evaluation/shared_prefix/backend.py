"""The backend `shared-prefix` of lm-eval."""

from __future__ import annotations

import inspect
import logging
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
import torch
import torch.nn.functional as F
from lm_eval.api.registry import register_model
from lm_eval.models.huggingface import HFLM
from numpy.typing import NDArray
from tqdm import tqdm
from transformers import PretrainedConfig

from wildmerge import WildmergeError

from ..requests import check_requests
from .attention import NAME, Cache, Mask, PackedAttention, Pass, Tiles
from .precision import not_finite, single_precision
from .tree import TILE, Integers, Tokens, Tree

log = logging.getLogger("lm_eval.shared_prefix")

# Where paths are long, gathering them costs more than looking at some keys in vain.
WIDE_TILE, LONG_PATH = 128, 256
# Rows of the vocabulary that are normalised at a time; on a CPU they should fit its cache.
ROWS, CPU_ROWS = 256, 8
# Tokens in a forward pass on a CPU, where more is not faster.
CPU_TOKENS = 1024
# Of the trial's logits, in single precision.
TOLERANCE = 1e-3

# A setting that may say how many tokens a query looks back on, or at; these two count layers.
REACH = re.compile(
    r"window(?!_layers|_pattern)|chunk_(size|len)|index\w*_topk|keep_|local_att|block_size|budget"
)

# What lm-eval asks: the strings, or None, context tokens, answer tokens.
Request = tuple[tuple[str, str] | None, Tokens, Tokens]


def register_backend() -> None:
    """Make the backend known to lm-eval; a second call changes nothing."""
    register_model(NAME)(SharedPrefixLM)


def lm_eval_command_line(arguments: Sequence[str]) -> None:
    """Run lm-eval's own command line with the backend registered.

    Args:
        arguments: lm-eval's, such as `["run", "--model", "shared-prefix", ...]`.

    Raises:
        SystemExit: as lm-eval ends.
    """
    from lm_eval.__main__ import cli_evaluate

    register_backend()
    # lm-eval takes its arguments from nowhere else.
    sys.argv = ["lm-eval", *arguments]
    cli_evaluate()


class _Answers(NamedTuple):
    """What a tree's scored nodes gave: log-likelihoods (P,) and whether they are greedy (P,)."""

    values: NDArray[np.float64]
    greedy: NDArray[np.bool_]


class _Part(NamedTuple):
    """What one pass gave.

    Attributes:
        ran: how many nodes the pass ran.
        pairs: (p,) which of the tree's scored nodes it holds, in the order of their nodes.
        nodes: (s,) their distinct nodes.
        row: (p,) the row of `logits` of each.
        logits: (s, vocabulary), of one other node where s is 0.
        running: the pass.
    """

    ran: int
    pairs: Integers
    nodes: Integers
    row: Integers
    logits: torch.Tensor
    running: Pass


class SharedPrefixLM(HFLM):
    """lm-eval's `hf` backend, with log-likelihoods by shared prefixes.

    Args:
        batch_tokens: tokens in one forward pass, or "auto": 1,024 on a CPU; on a GPU what fits in
            half of the free memory, 16,384 at most. A pass that runs out of a GPU's memory is
            halved.
        *args: as for `hf`.
        **kwargs: as for `hf`, whose batch_size holds for generation only.

    Raises:
        WildmergeError: `batch_tokens` is no number of tokens.

    Attributes:
        tokens_asked: tokens of all requests' inputs so far.
        tokens_distinct: of their distinct prefixes.
        tokens_run: run through the model.
        obstacle: why the last call ran as `hf` does; None where it ran by shared prefixes.
    """

    def __init__(self, *args: Any, batch_tokens: int | str = "auto", **kwargs: Any):
        if batch_tokens != "auto" and not (isinstance(batch_tokens, int) and batch_tokens > 0):
            raise WildmergeError(
                f"Expected batch_tokens to be the tokens of a forward pass, 1 or more, or auto, "
                f"but it is {batch_tokens!r}. Correct the backend's model_args."
            )
        super().__init__(*args, **kwargs)
        self.batch_tokens = batch_tokens
        self.tokens_asked = self.tokens_distinct = self.tokens_run = 0
        self.obstacle: str | None = None
        self._tried, self._flaw = False, cast(str | None, None)
        self._masks: set[Mask] = set()
        self._logits_dtype: torch.dtype = self.model.dtype

    def _budget(self) -> int:
        """Tokens in one forward pass, a multiple of TILE; settled at the first call."""
        if self.batch_tokens == "auto" and self.device.type != "cuda":
            self.batch_tokens = CPU_TOKENS
        elif self.batch_tokens == "auto":
            config = self.model.config.get_text_config()
            wide = 12 * config.hidden_size + 4 * getattr(config, "intermediate_size", 0)
            # As if every token were scored.
            token = self.model.dtype.itemsize * (wide + config.vocab_size)
            tokens = torch.cuda.mem_get_info(self.device)[0] / 2 / token
            # A power of two, so that a little more or less free memory changes nothing.
            self.batch_tokens = int(2 ** np.clip(np.floor(np.log2(max(tokens, 1))), 6, 14))
        return max(1, int(self.batch_tokens) // TILE) * TILE

    def _obstacle(self, longest: int) -> str | None:
        """Why the model can't be run by shared prefixes; None if it can.

        What its layers remember is known from what they hand to their attention, and from its
        settings; a small tree is run both ways, too.

        Args:
            longest: tokens of the longest input.

        Raises:
            WildmergeError: its weights are not numbers.
        """
        config = self.model.config.get_text_config()
        rope = getattr(config, "rope_parameters", None) or {}
        kinds = {rope.get("rope_type")} | {
            kind.get("rope_type") for kind in rope.values() if isinstance(kind, dict)
        }
        trained = (
            rope.get("original_max_position_embeddings")
            or getattr(config, "original_max_position_embeddings", None)
            or config.max_position_embeddings
            if kinds & {"dynamic", "longrope"}
            else longest
        )
        if longest > trained:
            return f"its positions depend on the length of the input beyond {trained} tokens"
        if not self._tried:
            self._tried, self._flaw = True, self._trial(config)
            if self.device.type == "cuda":
                # The widened weights must not count against the budget.
                torch.cuda.empty_cache()
        if self._flaw:
            return self._flaw
        slides = "sliding_attention" in (
            getattr(config, "layer_types", None) or ["sliding_attention"]
        )
        for name, reach in vars(config).items():
            if (
                (slides or name != "sliding_window")
                and REACH.search(name)
                and isinstance(reach, int)
                and not isinstance(reach, bool)
                and 1 <= reach < longest
                and not any(mask.ends_at(reach) for mask in self._masks)
            ):
                return f"its {name} is {reach} tokens, but no mask of its attention ends there"
        return None

    def _trial(self, config: PretrainedConfig) -> str | None:
        """Why a small tree can't be run packed, or gives other logits; None if all is well."""
        if self.backend != "causal":
            return "it is no causal language model"
        layer_types = set(getattr(config, "layer_types", None) or ())
        if unknown := layer_types - {"full_attention", "sliding_attention", "chunked_attention"}:
            return f"it has layers of type {', '.join(sorted(unknown))}"
        takes = inspect.signature(self.model.forward).parameters
        if missing := {"attention_mask", "position_ids", "logits_to_keep"} - set(takes):
            return f"it takes no {' and no '.join(sorted(missing))}"
        draw = np.random.default_rng(0).integers(0, config.vocab_size, 120)
        fork = np.concatenate([draw[:76], draw[96:]])
        # Two inputs that part behind the first tile, in passes of one tile.
        requests = [(draw[:80], draw[80:96]), (fork[:76], fork[76:])]
        tree = Tree.build(requests, 120)
        logits: dict[int, torch.Tensor] = {}
        layers: set[int] = set()

        def use(part: _Part) -> None:
            rows = zip(part.nodes.tolist(), part.logits, strict=False)
            logits.update({node: row.float().cpu() for node, row in rows})
            layers.update(part.running.kept)
            self._masks |= part.running.masks

        plain: list[torch.Tensor] = []
        with single_precision(self.model), torch.inference_mode():
            for context, answer in requests:
                row = torch.tensor(np.concatenate([context, answer])[:-1], device=self.device)
                plain.append(self.model(row[None]).logits[0, -len(answer) :].float().cpu())
            try:
                self._walk(tree, TILE, use, mixed=None)
            except torch.OutOfMemoryError:  # says nothing about the model
                raise
            except (TypeError, AttributeError, RuntimeError, ValueError, IndexError) as failure:
                return f"it failed on packed input ({type(failure).__name__}: {failure})"
        if len(layers) != config.num_hidden_layers:
            return f"only {len(layers)} of its {config.num_hidden_layers} layers are attention"
        for request, expected in enumerate(plain):
            if not expected.isfinite().all():
                if tensor := not_finite(self.model):
                    raise WildmergeError(
                        f"Expected the weights of {self.pretrained} to be numbers, but "
                        f"{tensor} holds some that are not. Look at the log of the merge that "
                        f"wrote them; delete its folder and run again."
                    )
                return "its logits are no numbers on a trial, so that nothing can be compared"
            scored = tree.node[slice(*tree.offsets[request : request + 2])]
            packed = torch.stack([logits[node] for node in scored.tolist()])
            # A constant in all logits of a token changes no probability.
            packed, expected = (x - x.mean(-1, keepdim=True) for x in (packed, expected))
            error = ((packed - expected).norm(dim=-1) / expected.norm(dim=-1)).median()
            # In single precision rounding gives some 1e-6. Here and there a token is chaotic (two
            # experts as likely as each other); a wrong pattern changes every one. Hence the median.
            if not error <= TOLERANCE:
                return f"packed input changes its logits by {float(error):.1e} of their size"
        return None

    def _tiles(
        self, tree: Tree, first: int, last: int, tile: int, paths: Mapping[int, Integers]
    ) -> Tiles:
        """Some tiles of the pass over nodes first..last. paths: of each, its ancestors."""
        number = np.array(list(paths))
        # A multiple of 8, as kernels on GPUs like it.
        longest = -(-max(map(len, paths.values())) // 8) * 8
        carried = tree.depth[first]
        # The last node stands in for queries that are not there.
        query = np.minimum(first + number[:, None] * tile + np.arange(tile), last - 1)
        key = np.full((len(number), longest + tile), -1)
        for row, path in zip(key, paths.values(), strict=True):
            row[: len(path)] = path
        key[:, longest:] = query
        real = key >= 0
        real[:, longest + 1 :] &= query[:, 1:] != query[:, :-1]
        key = np.where(real, key, query[:, :1])
        # A key is either an ancestor carried over, at its depth, or of this pass.
        index = np.where(key < first, tree.depth[key], carried + key - first)
        end = self._put(np.where(real, tree.end[key], -1))[:, None, None]
        keys, queries = self._put(key)[:, None, None], self._put(query)[:, None, :, None]
        mask = (keys <= queries) & (queries < end)
        query_depth, key_depth = self._put(tree.depth[query]), self._put(tree.depth[key])
        depth = query_depth[:, None, :, None], key_depth[:, None, None]
        return Tiles(self._put(number), self._put(index), mask, depth)

    def _plan(
        self,
        tree: Tree,
        first: int,
        last: int,
        paths: Sequence[Integers],
        after: Integers,
        carried: Cache,
    ) -> Pass:
        """The pass over nodes first..last. paths: every TILE nodes; after: of node `last`."""
        tile = TILE if max(map(len, paths)) < LONG_PATH else WIDE_TILE
        paths = paths[:: tile // TILE]
        groups: list[dict[int, Integers]] = []
        longest = np.inf
        for number in sorted(range(len(paths)), key=lambda i: -len(paths[i])):
            if longest > tile + 1.5 * len(paths[number]):
                longest = len(paths[number])
                groups.append({})
            groups[-1][number] = paths[number]
        carry = np.where(after < first, tree.depth[after], tree.depth[first] + after - first)
        tiles = [self._tiles(tree, first, last, tile, group) for group in groups]
        return Pass(tile, tiles, self._put(carry), carried)

    def _walk(
        self,
        tree: Tree,
        budget: int,
        use: Callable[[_Part], None],
        mixed: torch.dtype | None,
    ) -> None:
        """Run a tree, pass after pass of `budget` nodes.

        Args:
            tree: the requests.
            budget: a multiple of TILE.
            use: called after every pass with what it gave; where it runs out of a GPU's memory,
                the pass is repeated in halves.
            mixed: number format of autocast, None for none.
        """
        order = np.argsort(tree.node, kind="stable")
        nodes = tree.node[order]
        total, first = len(tree.tokens), 0
        carried: Cache = {}
        walk, waiting = tree.paths(), list[Integers]()
        attention = PackedAttention(self.model)
        with (
            torch.inference_mode(),
            torch.autocast(self.device.type, mixed, enabled=mixed is not None),
            attention.installed(),
        ):
            while first < total:
                last = min(first + budget, total)
                tiles = -(-(last - first) // TILE)
                while len(waiting) < tiles + (last < total):
                    waiting.append(next(walk))
                after = waiting[tiles] if last < total else np.empty(0, dtype=np.int64)
                pairs = slice(*np.searchsorted(nodes, [first, last]))
                scored, row = np.unique(nodes[pairs] - first, return_inverse=True)
                try:
                    attention.running = self._plan(
                        tree, first, last, waiting[:tiles], after, carried
                    )
                    logits = self.model(
                        input_ids=self._put(tree.tokens[first:last])[None],
                        position_ids=self._put(tree.depth[first:last])[None],
                        # Else positions that go back are taken for several sequences.
                        attention_mask=self._put(np.ones((1, last - first), dtype=bool)),
                        # An empty choice is not understood by all models.
                        logits_to_keep=self._put(scored if len(scored) else np.zeros(1, int)),
                        use_cache=False,
                    ).logits[0]
                    use(
                        _Part(
                            last - first,
                            order[pairs],
                            scored + first,
                            row,
                            logits,
                            attention.running,
                        )
                    )
                except torch.OutOfMemoryError:
                    if budget <= TILE or self.device.type == "cpu":
                        raise
                    attention.running = None
                    torch.cuda.empty_cache()
                    budget = self.batch_tokens = max(TILE, budget // 2 // TILE * TILE)
                    log.warning("Out of memory: going on with %d tokens a pass.", budget)
                    continue
                carried = attention.running.kept
                del waiting[:tiles], logits
                first = last

    def _run(self, tree: Tree, budget: int, progress: tqdm) -> _Answers:
        """Score a tree."""
        values = np.empty(len(tree.node), dtype=np.float64)
        greedy = np.empty(len(tree.node), dtype=bool)

        def use(part: _Part) -> None:
            self._logits_dtype = part.logits.dtype
            if len(part.nodes):
                target = tree.target[part.pairs]
                values[part.pairs], greedy[part.pairs] = self._score(part.logits, part.row, target)
            self.tokens_run += part.ran
            progress.update(part.ran)

        self._walk(tree, budget, use, self.mixed_precision_dtype)
        return _Answers(values, greedy)

    def _put(self, array: NDArray[Any]) -> torch.Tensor:
        return torch.from_numpy(array).to(self.device)

    def _score(
        self, logits: torch.Tensor, row: Integers, target: Integers
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Log-likelihood and greedy flag of each target (P,) at its row of logits (S, V).

        Rounded where `hf` rounds: it normalises in the logits' own dtype unless told otherwise.
        """
        size = ROWS if logits.is_cuda else CPU_ROWS
        expected = self._put(target)
        # Pairs come sorted by row: these are the first of each block of rows.
        firsts = np.searchsorted(row, range(0, len(logits) + size, size))
        values, greedy = [], []
        for block, first, last in zip(logits.split(size), firsts, firsts[1:], strict=False):
            block = F.log_softmax(block, -1, dtype=self.softmax_dtype)
            at, to = self._put(row[first:last] % size), expected[first:last]
            values.append(block[at, to])
            # Most answers are not the likeliest; of equally likely tokens the first counts.
            likeliest = values[-1] == block.amax(-1)[at]
            likeliest[likeliest.clone()] = block[at[likeliest]].argmax(-1) == to[likeliest]
            greedy.append(likeliest)
        return torch.cat(values).double().cpu().numpy(), torch.cat(greedy).cpu().numpy()

    def _loglikelihood_tokens(
        self,
        requests: Sequence[Request],
        disable_tqdm: bool = False,
        override_bs: int | None = None,
    ) -> list[tuple[float, bool]]:
        if not requests:
            return []
        check_requests(
            ((context, answer) for _, context, answer in requests), "a call", self.max_length
        )
        tree = Tree.build([(context, answer) for _, context, answer in requests], self.max_length)
        self.obstacle = self._obstacle(int(tree.lengths.max()))
        if self.obstacle:
            log.warning("Running %s as `hf` does: %s.", self.pretrained, self.obstacle)
            plain = [(pair, [int(t) for t in c], [int(t) for t in a]) for pair, c, a in requests]
            return super()._loglikelihood_tokens(plain, disable_tqdm, override_bs)
        asked = sum(min(len(c) + len(a) - 1, self.max_length) for _, c, a in requests)
        distinct = len(tree.tokens)
        self.tokens_asked += asked
        self.tokens_distinct += distinct
        with tqdm(
            total=distinct,
            desc=f"{len(requests)} requests, {1 - distinct / asked:.0%} of {asked} tokens shared",
            unit="tok",
            unit_scale=True,
            mininterval=5,
            disable=disable_tqdm or self.rank != 0,
        ) as progress:
            values, greedy = self._run(tree, self._budget(), progress)
        # As `hf` sums, in the format that the logits, or their softmax, come in.
        dtype = self.softmax_dtype or self._logits_dtype
        sums = torch.from_numpy(np.add.reduceat(values, tree.offsets[:-1])).to(dtype).tolist()
        flags = np.logical_and.reduceat(greedy, tree.offsets[:-1]).tolist()
        for (pair, _, _), answer in zip(requests, zip(sums, flags, strict=True), strict=True):
            if pair is not None:
                self.cache_hook.add_partial("loglikelihood", pair, answer)
        return list(zip(sums, flags, strict=True))
