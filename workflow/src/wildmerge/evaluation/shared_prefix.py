"""An lm-eval backend that runs every distinct prefix of the requests once: `shared-prefix`.

Multiple choice by log-likelihood asks a model for many sequences that begin alike: few-shot
examples, fixed instructions, a question before each of its choices. All requests of a call are
laid out as one tree of tokens, and the model runs its nodes in depth-first order, packed without
padding: a token's position is its depth, and it attends to its ancestors. The vocabulary is
computed only where an answer is scored. It gives what lm-eval's `hf` backend gives, up to
floating-point noise, and is used like it:

    python -m wildmerge.shared_prefix run --model shared-prefix --model_args pretrained=... ...

is lm-eval's own command line with this backend registered. Everything that `hf` takes is taken;
`batch_tokens` bounds the tokens of one forward pass (`auto` where it is not given). Models that
can't be run this way (see `_obstacle`) run as `hf` would.
"""

import inspect
import logging
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from lm_eval.api.registry import register_model
from lm_eval.models.huggingface import HFLM
from tqdm import tqdm
from transformers.modeling_utils import AttentionInterface

log = logging.getLogger("lm_eval.shared_prefix")

NAME = "shared-prefix"
# Queries that share one gathered set of keys: the path to the first of them, and the tile itself.
# Where paths are long, gathering them costs more than looking at some keys in vain.
TILE, WIDE_TILE, LONG_PATH = 32, 128, 256
# Rows of the vocabulary that are normalised at a time; on a CPU they should fit its cache.
ROWS, CPU_ROWS = 256, 8
# Tokens in a forward pass on a CPU, where more is not faster.
CPU_TOKENS = 1024


@dataclass
class Tree:
    """Token sequences as a prefix tree in depth-first order, U nodes for all distinct prefixes.

    tokens, depth: (U,) the node's token and its position. end: (U,) one behind the last node of its
    subtree, so a is u or an ancestor of u just when a <= u < end[a]. starts, shared, lengths: per
    distinct sequence in order, its first own node, the tokens it shares with the one before, its
    length. node, target: (P,) scored nodes and the tokens expected after them, `offsets` of each
    request among them.
    """

    tokens: np.ndarray
    depth: np.ndarray
    end: np.ndarray
    starts: np.ndarray
    shared: np.ndarray
    lengths: np.ndarray
    node: np.ndarray
    target: np.ndarray
    offsets: np.ndarray

    @classmethod
    def build(cls, requests, max_length: int) -> "Tree":
        """Lay out requests.

        requests: (context tokens, answer tokens) each; too long ones lose tokens from the left, as
        in lm-eval. max_length: longest input of the model, in tokens.
        """
        keys: dict[bytes, int] = {}
        which, answers = [], []
        before = before_key = None
        for context, answer in requests:
            answer = np.asarray(answer, dtype=np.int64)
            # One-token choices of a question all have its prompt as their input.
            if not (context is before and len(answer) == 1 and before_key is not None):
                whole = np.concatenate([np.asarray(context, dtype=np.int64), answer])
                row = whole[-(max_length + 1) :][:-1]
                # Big-endian bytes sort as the tokens do.
                number = keys.setdefault(row.astype(">u4").tobytes(), len(keys))
                before, before_key = context, number if len(answer) == 1 else None
            else:
                number = before_key
            which.append(number)
            answers.append(answer)
        ordered = sorted(keys)
        place = np.empty(len(keys), dtype=np.int64)
        rows = []
        for position, key in enumerate(ordered):
            place[keys[key]] = position
            rows.append(np.frombuffer(key, dtype=">u4").astype(np.int64))
        del keys, ordered
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
            asked[place[number]].append(request)
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

    def paths(self):
        """For node 0, TILE, 2 TILE, ... in turn: its ancestors, from the root down."""
        path = np.empty(int(self.lengths.max()), dtype=np.int64)
        sequence = -1
        for first in range(0, len(self.tokens), TILE):
            while self.starts[sequence + 1] <= first:
                sequence += 1
                start, stop = self.starts[sequence], self.starts[sequence + 1]
                path[self.shared[sequence] : self.lengths[sequence]] = np.arange(start, stop)
            yield path[: self.depth[first]].copy()


@dataclass
class _Tiles:
    """Tiles of queries whose paths are about as long, so that their keys stack with little padding.

    number: (tiles,) which of the pass. index: (tiles, keys) rows of [carried; own] keys. mask:
    (tiles, 1, tile, keys) bool. depth: of the queries (tiles, 1, tile, 1) and of the keys
    (tiles, 1, 1, keys).
    """

    number: torch.Tensor
    index: torch.Tensor
    mask: torch.Tensor
    depth: tuple[torch.Tensor, torch.Tensor]
    _bias: dict = field(default_factory=dict)

    def bias(self, window: int | None, dtype: torch.dtype) -> torch.Tensor:
        """What is added to the scores: 0 where a query sees a key, else -inf."""
        if (window, dtype) not in self._bias:
            seen = self.mask
            if window is not None:
                seen = seen & (self.depth[0] - self.depth[1] < window)
            hidden = torch.zeros(seen.shape, dtype=dtype, device=seen.device)
            self._bias[window, dtype] = hidden.masked_fill_(~seen, float("-inf"))
        return self._bias[window, dtype]


@dataclass
class _Pass:
    """One forward pass over consecutive nodes.

    tile: queries in a tile. groups: its tiles. carry: rows of [carried; own] keys to keep for the
    next pass. carried: layer -> keys and values (ancestors of the first node, heads, width) from
    the passes before. kept: the same for the next pass.
    """

    tile: int
    groups: list[_Tiles]
    carry: torch.Tensor
    carried: dict
    native: str
    kept: dict = field(default_factory=dict)

    def attend(self, layer, query, key, value, scaling, window, softcap):
        """Attention over ancestors: query (1, heads, N, width) -> (1, N, heads, width)."""
        _, heads, count, width = query.shape
        tiles = -(-count // self.tile)
        rows = []
        for own, old in zip((key, value), self.carried.get(layer, (None, None)), strict=True):
            own = own[0].transpose(0, 1)
            rows.append(own if old is None else torch.cat([old, own]))
        self.kept[layer] = tuple(x[self.carry] for x in rows)
        if tiles * self.tile != count:
            query = F.pad(query, (0, 0, 0, tiles * self.tile - count))
        query = query[0].view(heads, tiles, self.tile, width).transpose(0, 1)
        out = query.new_empty(tiles, self.tile, heads, rows[1].shape[-1])
        for group in self.groups:
            key, value = (x[group.index].transpose(1, 2) for x in rows)
            grouped = heads != key.shape[1]
            # GPUs have no fast kernel for grouped heads under a mask.
            if grouped and (softcap or query.is_cuda):
                key, value = (x.repeat_interleave(heads // x.shape[1], 1) for x in (key, value))
                grouped = False
            bias = group.bias(window, query.dtype)
            if softcap:
                scores = torch.matmul(query[group.number], key.transpose(2, 3)) * scaling
                scores = torch.tanh(scores / softcap) * softcap + bias
                shares = F.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
                found = torch.matmul(shares, value)
            else:
                found = F.scaled_dot_product_attention(
                    query[group.number], key, value, bias, scale=scaling, enable_gqa=grouped
                )
            out[group.number] = found.transpose(1, 2)
        return out.view(1, tiles * self.tile, heads, -1)[:, :count]


# The pass that runs now: transformers gives an attention function no other way to know.
_now: _Pass | None = None


def _attention(
    module, query, key, value, attention_mask, scaling=None, sliding_window=None, **kwargs
):
    # transformers' own sdpa leaves soft-capping out; do as it does.
    softcap = kwargs.get("softcap") if _now.native == "eager" else None
    out = _now.attend(module.layer_idx, query, key, value, scaling, sliding_window, softcap)
    return out, None


AttentionInterface.register(NAME, _attention)


@contextmanager
def _packed(model):
    """Let a model's attention layers call `_attention`, for a while."""
    global _now
    native = model.config._attn_implementation
    model.config._attn_implementation = NAME
    try:
        yield native
    finally:
        model.config._attn_implementation = native
        _now = None


@register_model(NAME)
class SharedPrefixLM(HFLM):
    """lm-eval's `hf` backend, with log-likelihoods by shared prefixes.

    batch_tokens: tokens in one forward pass, or "auto": 1,024 on a CPU; on a GPU what fits in half
    of the free memory, 16,384 at most. A pass that runs out of a GPU's memory is halved. All else
    as for `hf`, whose batch_size holds for generation only.
    """

    def __init__(self, *args, batch_tokens: int | str = "auto", **kwargs):
        super().__init__(*args, **kwargs)
        self.batch_tokens = batch_tokens
        # Tokens of all requests' inputs, of their distinct prefixes, and run, so far.
        self.tokens_asked = self.tokens_distinct = self.tokens_run = 0
        self._obstacles: dict[str, str | None] = {}

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

        longest: tokens of the longest input. The model's code says little about what its layers
        remember, so a small tree is run both ways, too.
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
        if "tree" not in self._obstacles:
            self._obstacles["tree"] = self._trial(config)
        return self._obstacles["tree"]

    def _trial(self, config) -> str | None:
        if self.backend != "causal":
            return "it is no causal language model"
        layers = set(getattr(config, "layer_types", None) or ())
        if unknown := layers - {"full_attention", "sliding_attention"}:
            return f"it has layers of type {', '.join(sorted(unknown))}"
        takes = inspect.signature(self.model.forward).parameters
        if missing := {"position_ids", "logits_to_keep"} - set(takes):
            return f"it takes no {' and no '.join(sorted(missing))}"
        draw = np.random.default_rng(0).integers(0, config.vocab_size, 120)
        fork = np.concatenate([draw[:76], draw[96:]])
        # Two inputs that part behind the first tile, in passes of one tile.
        requests = [(draw[:80], draw[80:96]), (fork[:76], fork[76:])]
        tree = Tree.build(requests, 120)
        try:
            found, layers = self._run(tree, TILE, whole=True)
        except torch.OutOfMemoryError:  # says nothing about the model
            raise
        except (TypeError, AttributeError, RuntimeError, ValueError, IndexError) as error:
            return f"it failed on packed input ({type(error).__name__}: {error})"
        if len(layers) != config.num_hidden_layers:
            return f"only {len(layers)} of its {config.num_hidden_layers} layers are attention"
        # Rounding alone gives some units of the dtype, and here and there a token is chaotic (in
        # bfloat16, errors of 0.04 and one of 8 were seen in one input); a wrong pattern changes
        # every token, by about 1.4. Hence the median.
        tolerance = max(1e-3, 64 * torch.finfo(self.model.dtype).eps)
        for request, (context, answer) in enumerate(requests):
            row = torch.tensor(np.concatenate([context, answer])[:-1], device=self.device)
            plain = self._model_call(row[None])[0, -len(answer) :].float().cpu()
            packed = torch.stack(
                [found[node] for node in tree.node[slice(*tree.offsets[request : request + 2])]]
            )
            # A constant in all logits of a token changes no probability.
            packed, plain = (x - x.mean(-1, keepdim=True) for x in (packed, plain))
            error = ((packed - plain).norm(dim=-1) / plain.norm(dim=-1)).median()
            if not error <= tolerance:
                return f"packed input changes its logits by {float(error):.1e} of their size"
        return None

    def _tiles(self, tree: Tree, first: int, last: int, tile: int, paths: dict) -> _Tiles:
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
        return _Tiles(self._put(number), self._put(index), mask, depth)

    def _plan(self, tree: Tree, first: int, last: int, paths, after, carried, native) -> _Pass:
        """The pass over nodes first..last. paths: every TILE nodes; after: of node `last`."""
        tile = TILE if max(map(len, paths)) < LONG_PATH else WIDE_TILE
        paths = paths[:: tile // TILE]
        groups, longest = [], np.inf
        for number in sorted(range(len(paths)), key=lambda i: -len(paths[i])):
            if longest > tile + 1.5 * len(paths[number]):
                longest = len(paths[number])
                groups.append({})
            groups[-1][number] = paths[number]
        carry = np.where(after < first, tree.depth[after], tree.depth[first] + after - first)
        tiles = [self._tiles(tree, first, last, tile, group) for group in groups]
        return _Pass(tile, tiles, self._put(carry), carried, native)

    def _run(self, tree: Tree, budget: int, whole: bool = False, progress=None):
        """Run a tree; returns log-likelihoods (P,) and greedy flags (P,).

        whole: return {node: logits} of the scored nodes and the layers that attended instead.
        """
        global _now
        order = np.argsort(tree.node, kind="stable")
        nodes = tree.node[order]
        values = np.empty(len(order), dtype=np.float64)
        greedy = np.empty(len(order), dtype=bool)
        logits_of, layers = {}, set()
        total, first, carried = len(tree.tokens), 0, {}
        walk, waiting = tree.paths(), []
        mixed = self.mixed_precision_dtype
        with (
            torch.inference_mode(),
            torch.autocast(self.device.type, mixed, enabled=mixed is not None),
            _packed(self.model) as native,
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
                    _now = self._plan(tree, first, last, waiting[:tiles], after, carried, native)
                    logits = self.model(
                        input_ids=self._put(tree.tokens[first:last])[None],
                        position_ids=self._put(tree.depth[first:last])[None],
                        # An empty choice is not understood by all models.
                        logits_to_keep=self._put(scored if len(scored) else np.zeros(1, int)),
                        use_cache=False,
                    ).logits[0]
                    if whole:
                        logits_of |= {
                            int(node) + first: logits[i].float().cpu()
                            for i, node in enumerate(scored)
                        }
                        layers |= set(_now.kept)
                    elif len(scored):
                        target = tree.target[order[pairs]]
                        values[order[pairs]], greedy[order[pairs]] = self._score(
                            logits, row, target
                        )
                except torch.OutOfMemoryError:
                    if budget <= TILE or self.device.type == "cpu":
                        raise
                    _now = None
                    torch.cuda.empty_cache()
                    budget = self.batch_tokens = max(TILE, budget // 2 // TILE * TILE)
                    log.warning("Out of memory: going on with %d tokens a pass.", budget)
                    continue
                carried = _now.kept
                del waiting[:tiles], logits
                if not whole:
                    self.tokens_run += last - first
                if progress:
                    progress.update(last - first)
                first = last
        return (logits_of, layers) if whole else (values, greedy)

    def _put(self, array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(array).to(self.device)

    def _score(self, logits, row, target):
        """Log-likelihood and greedy flag of each target (P,) at its row of logits (S, V).

        Rounded where `hf` rounds: it normalises in the logits' own dtype unless told otherwise.
        """
        size = ROWS if logits.is_cuda else CPU_ROWS
        target = self._put(target)
        # Pairs come sorted by row: these are the first of each block of rows.
        firsts = np.searchsorted(row, range(0, len(logits) + size, size))
        values, greedy = [], []
        for block, first, last in zip(logits.split(size), firsts, firsts[1:], strict=False):
            block = F.log_softmax(block, -1, dtype=self.softmax_dtype)
            at, to = self._put(row[first:last] % size), target[first:last]
            values.append(block[at, to])
            # Most answers are not the likeliest; of equally likely tokens the first counts.
            likeliest = values[-1] == block.amax(-1)[at]
            likeliest[likeliest.clone()] = block[at[likeliest]].argmax(-1) == to[likeliest]
            greedy.append(likeliest)
        return torch.cat(values).double().cpu().numpy(), torch.cat(greedy).cpu().numpy()

    def _loglikelihood_tokens(self, requests, disable_tqdm=False, override_bs=None):
        if not requests:
            return []
        tree = Tree.build([(context, answer) for _, context, answer in requests], self.max_length)
        if obstacle := self._obstacle(int(tree.lengths.max())):
            log.warning("Running %s as `hf` does: %s.", self.pretrained, obstacle)
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
            values, greedy = self._run(tree, self._budget(), progress=progress)
        dtype = self.softmax_dtype or self.model.dtype
        sums = torch.from_numpy(np.add.reduceat(values, tree.offsets[:-1])).to(dtype).tolist()
        flags = np.logical_and.reduceat(greedy, tree.offsets[:-1]).tolist()
        for (pair, _, _), answer in zip(requests, zip(sums, flags, strict=True), strict=True):
            if pair is not None:
                self.cache_hook.add_partial("loglikelihood", pair, answer)
        return list(zip(sums, flags, strict=True))


if __name__ == "__main__":
    from lm_eval.__main__ import cli_evaluate

    cli_evaluate()
