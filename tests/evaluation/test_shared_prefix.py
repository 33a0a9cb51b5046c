"""The shared-prefix backend against lm-eval's own hf backend, on pico models of many families."""

import random

import numpy as np
import pico
import pytest
import torch
import transformers
from lm_eval.api.instance import Instance
from lm_eval.api.registry import get_model
from lm_eval.models.huggingface import HFLM
from transformers.masking_utils import sliding_window_causal_mask_function
from wildmerge import WildmergeError
from wildmerge.evaluation.shared_prefix.attention import Mask, Pass
from wildmerge.evaluation.shared_prefix.backend import SharedPrefixLM, register_backend
from wildmerge.evaluation.shared_prefix.tree import TILE, Tree

SIZES = {
    "vocab_size": 257,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    # Large weights: attention that looks at the wrong token changes much.
    "initializer_range": 0.4,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 0,
}
WINDOW = {"sliding_window": 24}
GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 512, "vocab_size": 257}
PACKED = {
    "llama": {},
    "qwen3": {"head_dim": 8},
    "qwen2": WINDOW | {"use_sliding_window": True, "max_window_layers": 1},
    "mistral": WINDOW,
    "mixtral": WINDOW | {"num_local_experts": 4, "num_experts_per_tok": 2},
    "gemma2": WINDOW | {"head_dim": 8, "query_pre_attn_scalar": 8},
    "gemma3_text": WINDOW | {"head_dim": 8, "query_pre_attn_scalar": 8},
    "phi3": WINDOW,
    "olmo2": {},
    "gpt_neox": {"num_key_value_heads": None},
    "gpt2": GPT2,
}
# No position given from outside (ALiBi), or a state instead of attention.
PLAIN = {
    "bloom": {"n_layer": 2, "n_head": 4},
    "mamba": {"state_size": 4, "num_hidden_layers": 2},
}


def build(folder, kind, seed=0, **changes):
    """Save a pico model of an architecture that transformers knows by `kind`."""
    settings = {k: v for k, v in (SIZES | changes).items() if v is not None}
    config = transformers.AutoConfig.for_model(kind, **settings)
    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(config)
    return pico._save(model, folder, 257, torch.float32)


def backends(folder, dtype="float32", batch_size=4, batch_tokens=2 * TILE, **more):
    common = {"pretrained": str(folder), "device": "cpu", "dtype": dtype, **more}
    ours = SharedPrefixLM(**common, batch_size=batch_size, batch_tokens=batch_tokens)
    return ours, HFLM(**common, batch_size=batch_size)


def draws(count=24, seed=0, longest=512):
    """Requests of every shape: shared examples, one-token answers, prefixes, repeats, too long."""
    rng = random.Random(seed)

    def tokens(n):
        return [rng.randrange(1, 257) for _ in range(n)]

    shots, requests = tokens(300), []
    for _ in range(count):
        context = shots[: rng.choice([0, 70, 300])] + tokens(rng.choice([1, 5, 40, 90]))
        answers = [tokens(rng.choice([1, 1, 2, 7])) for _ in range(4)]
        answers += [answers[-1] + tokens(3), answers[0]]
        requests += [(None, context, answer) for answer in answers]
    requests += [(None, [0], [5]), (None, [0], tokens(9))]
    requests += [(None, tokens(longest + 80), tokens(3)), (None, tokens(longest), tokens(1))]
    return requests


@pytest.fixture(autouse=True)
def quiet(caplog):
    caplog.set_level("ERROR", logger="lm_eval")


def assert_same(ours, theirs, tolerance=1e-4):
    assert np.abs(np.array([v for v, _ in ours]) - [v for v, _ in theirs]).max() <= tolerance
    assert [flag for _, flag in ours] == [flag for _, flag in theirs]


@pytest.mark.parametrize("kind", PACKED)
def test_like_hf(tmp_path, kind):
    ours, theirs = backends(build(tmp_path, kind, **PACKED[kind]))
    requests = draws()
    found = ours._loglikelihood_tokens(requests, disable_tqdm=True)
    assert_same(found, theirs._loglikelihood_tokens(requests, disable_tqdm=True))
    assert ours.obstacle is None
    assert ours.tokens_run == ours.tokens_distinct < ours.tokens_asked / 4


@pytest.mark.parametrize("kind", PLAIN)
def test_what_cannot_be_packed_runs_as_hf(tmp_path, kind, caplog):
    ours, theirs = backends(build(tmp_path, kind, **PLAIN[kind]))
    requests = draws(4)
    caplog.set_level("WARNING", logger="lm_eval")
    found = ours._loglikelihood_tokens(requests, disable_tqdm=True)
    assert found == theirs._loglikelihood_tokens(requests, disable_tqdm=True)
    assert "as `hf` does" in caplog.text and ours.tokens_run == 0


def test_the_trial_notices_a_wrong_pattern(tmp_path, monkeypatch):
    # As if a layer hid from its attention function that it has a window.
    kept, mask = Pass.attend, Mask(sliding_window_causal_mask_function(24), by_index=True)
    monkeypatch.setattr(
        Pass,
        "attend",
        lambda self, *args: kept(self, *args[:5], mask, *args[6:]),
    )
    ours, theirs = backends(build(tmp_path, "llama"))
    requests = draws(3)
    found = ours._loglikelihood_tokens(requests, disable_tqdm=True)
    assert "changes its logits" in ours.obstacle
    assert found == theirs._loglikelihood_tokens(requests, disable_tqdm=True)


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ((None, [1, 2], []), "request 1 of a call has 2 and 0"),
        ((None, [], [3]), "request 1 of a call has 0 and 1"),
        ((None, [1], list(range(1, 200)) * 3), "answers of 512 tokens at most"),
    ],
)
def test_what_hf_asserts_is_told(tmp_path, request_, message):
    ours, theirs = backends(build(tmp_path, "llama"))
    requests = [(None, [1], [2]), request_]
    with pytest.raises(AssertionError):
        theirs._loglikelihood_tokens(requests, disable_tqdm=True)
    with pytest.raises(WildmergeError, match=message):
        ours._loglikelihood_tokens(requests, disable_tqdm=True)


@pytest.mark.parametrize("batch_tokens", [0, -5, "many"])
def test_a_pass_without_tokens_is_told(tmp_path, batch_tokens):
    with pytest.raises(WildmergeError, match=f"batch_tokens.*{batch_tokens}"):
        backends(build(tmp_path, "llama"), batch_tokens=batch_tokens)


def test_log_likelihoods_are_summed_as_hf_sums_them(tmp_path):
    # CTRL and others hand out logits in float32 whatever their weights are in.
    ours, theirs = backends(build(tmp_path, "llama"), "bfloat16")
    for lm in (ours, theirs):
        lm.model.lm_head.register_forward_hook(lambda _, __, out: out.float())
    requests = draws(2)
    found, expected = (
        np.array([v for v, _ in lm._loglikelihood_tokens(requests, True)]) for lm in (ours, theirs)
    )
    # Not on bfloat16's grid.
    assert not torch.equal(torch.tensor(found).bfloat16().double(), torch.tensor(found))
    assert np.sqrt(np.mean((found - expected) ** 2)) < 0.5


def test_positions_that_depend_on_length_run_as_hf(tmp_path):
    rope = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
    folder = build(tmp_path, "llama", max_position_embeddings=128, rope_parameters=rope)
    ours, _ = backends(folder, max_length=256)
    assert ours._obstacle(128) is None
    assert "depend on the length" in ours._obstacle(129)


def test_known_greedy_answers(tmp_path):
    # What the model itself would say is greedy, and only that.
    ours, theirs = backends(build(tmp_path, "llama"))
    context = list(range(1, 40))
    said = theirs.model.generate(
        torch.tensor([context]), max_new_tokens=6, do_sample=False, eos_token_id=None
    )[0, len(context) :].tolist()
    other = [*said[:-1], (said[-1] + 1) % 257]
    requests = [(None, context, answer) for answer in (said, said[:1], said[:4], other)]
    found = ours._loglikelihood_tokens(requests, disable_tqdm=True)
    assert [flag for _, flag in found] == [True, True, True, False]
    assert_same(found, theirs._loglikelihood_tokens(requests, disable_tqdm=True))


@pytest.mark.parametrize("family", ["llama", "qwen3"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_no_worse_than_another_batch_size(tmp_path, dtype, family):
    folder = build(tmp_path, family, hidden_size=64, intermediate_size=128, num_hidden_layers=4)
    requests = draws(16)

    def values(lm):
        return np.array([v for v, _ in lm._loglikelihood_tokens(requests, disable_tqdm=True)])

    def rms(x):
        return np.sqrt(np.mean(x**2))

    ours, sixteen = backends(folder, dtype, batch_size=16, softmax_dtype="float32")
    _, one = backends(folder, dtype, batch_size=1, softmax_dtype="float32")
    _, exact = backends(folder, softmax_dtype="float32")
    ours, sixteen, one, truth = map(values, (ours, sixteen, one, exact))
    assert rms(ours - truth) <= 1.25 * max(rms(one - truth), rms(sixteen - truth))
    # hf's two runs share most of their kernels here, and so their errors.
    assert rms(ours - sixteen) <= 2 * rms(one - sixteen)


def test_rounds_where_hf_rounds(tmp_path):
    # In bfloat16 hf's log-likelihoods lie on a coarse grid; ours lie on the same.
    ours, _ = backends(build(tmp_path, "llama"), "bfloat16")
    values = torch.tensor([v for v, _ in ours._loglikelihood_tokens(draws(4), True)])
    assert torch.equal(values, values.bfloat16().float())


def test_a_rerun_gives_the_same_bits(tmp_path):
    folder, requests = build(tmp_path, "llama"), draws(6)
    first = backends(folder)[0]._loglikelihood_tokens(requests, disable_tqdm=True)
    order = list(range(len(requests)))
    random.Random(1).shuffle(order)
    again = backends(folder)[0]._loglikelihood_tokens(
        [requests[i] for i in order], disable_tqdm=True
    )
    assert again == [first[i] for i in order]


@pytest.mark.parametrize("batch_tokens", [1, 5 * TILE, 100_000])
def test_any_budget_gives_the_same(tmp_path, batch_tokens):
    ours, theirs = backends(build(tmp_path, "qwen3", head_dim=8), batch_tokens=batch_tokens)
    requests = draws(8)
    found = ours._loglikelihood_tokens(requests, disable_tqdm=True)
    assert_same(found, theirs._loglikelihood_tokens(requests, disable_tqdm=True))


def test_out_of_memory_backs_off(tmp_path, monkeypatch):
    ours, theirs = backends(build(tmp_path, "llama"), batch_tokens=8 * TILE)
    assert ours._obstacle(100) is None
    monkeypatch.setattr(ours, "_device", torch.device("cuda"))
    monkeypatch.setattr(ours, "_put", torch.from_numpy)
    call, sizes = ours.model.forward, []

    def forward(input_ids, **more):
        sizes.append(input_ids.shape[1])
        if input_ids.shape[1] > 2 * TILE:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return call(input_ids=input_ids, **more)

    monkeypatch.setattr(ours.model, "forward", forward)
    requests = draws(8)
    found = ours._loglikelihood_tokens(requests, disable_tqdm=True)
    assert_same(found, theirs._loglikelihood_tokens(requests, disable_tqdm=True))
    assert sizes[:3] == [8 * TILE, 4 * TILE, 2 * TILE] and max(sizes[2:]) == 2 * TILE
    assert ours.batch_tokens == 2 * TILE


def test_through_lm_eval(tmp_path):
    # Strings, an empty context, trailing spaces; rolling and generation are inherited.
    ours, theirs = backends(build(tmp_path, "llama"))
    register_backend()
    register_backend()  # a second time changes nothing
    assert get_model("shared-prefix") is SharedPrefixLM

    def ask(kind, *rows):
        return [Instance(request_type=kind, doc={}, arguments=row, idx=0) for row in rows]

    pairs = [("", "word"), ("A question: ", " an answer"), ("A question:", " b"), ("", "<|end|>b")]
    for kind, rows in {
        "loglikelihood": pairs,
        "loglikelihood_rolling": [("some text " * 80,), ("short",)],
    }.items():
        found, expected = (
            getattr(lm, kind)(ask(kind, *rows), disable_tqdm=True) for lm in (ours, theirs)
        )
        assert np.allclose(np.array(found), np.array(expected), atol=1e-4, rtol=1e-5)
    generation = ask("generate_until", ("Once", {"until": ["\n"], "max_gen_toks": 8}))
    assert ours.generate_until(generation, True) == theirs.generate_until(generation, True)
    assert ours._loglikelihood_tokens([]) == []


def test_tree_by_hand():
    tree = Tree.build([([1, 2], [3, 4]), ([1, 2], [5]), ([1], [2, 3]), ([9], [1])], 10)
    # Inputs 1 2 3, 1 2, 1 2 and 9: four distinct prefixes.
    assert tree.tokens.tolist() == [1, 2, 3, 9]
    assert tree.depth.tolist() == [0, 1, 2, 0]
    assert tree.end.tolist() == [3, 3, 3, 4]
    assert tree.node.tolist() == [1, 2, 1, 0, 1, 3]
    assert tree.target.tolist() == [3, 4, 5, 2, 3, 1]
    assert tree.offsets.tolist() == [0, 2, 3, 5, 6]


@pytest.mark.parametrize("seed", range(5))
def test_tree_holds_each_prefix_once(seed):
    rng = random.Random(seed)
    requests = [
        (
            [rng.randrange(3) for _ in range(rng.randint(1, 90))],
            [rng.randrange(3) for _ in range(rng.randint(1, 5))],
        )
        for _ in range(60)
    ]
    tree = Tree.build(requests, 80)
    inputs = [(context + answer)[-81:][:-1] for context, answer in requests]
    prefixes = {tuple(row[:n]) for row in inputs for n in range(1, len(row) + 1)}
    total = len(tree.tokens)
    assert total == len(prefixes)
    paths = [[a for a in range(u + 1) if u < tree.end[a]] for u in range(total)]
    assert {tuple(tree.tokens[path]) for path in paths} == prefixes
    assert all(len(path) == depth + 1 for path, depth in zip(paths, tree.depth, strict=True))
    for first, path in zip(range(0, total, TILE), tree.paths(), strict=True):
        assert path.tolist() == paths[first][:-1]
    for number, (row, (_, answer)) in enumerate(zip(inputs, requests, strict=True)):
        scored = tree.node[tree.offsets[number] : tree.offsets[number + 1]]
        assert tree.tokens[paths[scored[-1]]].tolist() == row
        assert tree.depth[scored].tolist() == list(range(len(row) - len(answer), len(row)))
