"""Every causal language model of transformers: shared prefixes give what hf gives."""

import random
import warnings

import architectures
import numpy as np
import pico
import pytest
import torch
from lm_eval.models.huggingface import HFLM
from wildmerge.evaluation.shared_prefix.backend import TILE, SharedPrefixLM

# Windows of every sort that are longer than a trial, sinks, chunks, masks of their own, ordinary.
SAMPLE = ["doge", "gemma3_text", "gpt_oss", "llama4_text", "phimoe", "qwen2_moe", "qwen3"]


def requests():
    """Inputs of 300 tokens that share 200."""
    rng = random.Random(0)

    def tokens(n):
        return [rng.randrange(1, architectures.VOCABULARY) for _ in range(n)]

    shared = tokens(200)
    contexts = [shared + tokens(80) for _ in range(2)]
    return [(None, context, tokens(n)) for context in contexts for n in (1, 12, 21)]


def values(lm):
    return np.array([value for value, _ in lm._loglikelihood_tokens(requests(), True)])


def compare(kind, dtype, sinks):
    with warnings.catch_warnings(action="ignore"):
        model = architectures.build(kind, sinks).to(dtype)
    common = {"pretrained": model, "tokenizer": pico._tokenizer(257), "backend": "causal"}
    common |= {"batch_size": 2, "max_length": 512, "softmax_dtype": "float32"}
    ours, theirs = SharedPrefixLM(**common, batch_tokens=2 * TILE), HFLM(**common)
    found, expected = values(ours), values(theirs)
    assert (ours.obstacle is None) == (kind in architectures.PACKED), ours.obstacle
    assert np.isfinite(expected).all()
    difference = np.abs(found - expected).max()
    if ours.obstacle:
        assert difference == 0
    # A sink or a window that is missed costs some nats; bfloat16's rounding less than one.
    assert difference < (1e-3 if dtype == torch.float32 else 1)
    return any(architectures.is_sink(name) for name, _ in model.named_parameters())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(kind, marks=[] if kind in SAMPLE else pytest.mark.slow)
        for kind in architectures.KINDS
        if kind not in architectures.NOT_RUN
    ],
)
def test_like_hf_or_as_hf(kind, dtype):
    if kind == "inkling2_text" and dtype == torch.bfloat16:
        pytest.skip("transformers itself can't run it in bfloat16")
    if compare(kind, dtype, sinks=0):
        for sinks in (3, 8):
            compare(kind, dtype, sinks)
