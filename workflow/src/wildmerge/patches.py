"""Changes to other packages while they run. Each says why, and complains where it no longer fits.

All are for speed or comfort: without them the workflow computes the same.
"""

import functools
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def gguf_parsed_once() -> Iterator[None]:
    """Let transformers parse the header of a GGUF file once while the block runs.

    Upstream: `load_gguf_checkpoint` of transformers 5 (modeling_gguf_pytorch_utils.py) makes a
    `gguf.GGUFReader` of its own for the config, the weights and the tokenizer, and each reads the
    whole vocabulary again.
    Range: transformers 5, as long as it imports `GGUFReader` from `gguf` when it is called;
    measured with transformers 5.23 and gguf 0.19, where it saves a quarter of the time to fetch a
    model of 135M parameters.
    """
    import gguf

    original = gguf.GGUFReader
    parsed = functools.cache(original)
    vars(gguf)["GGUFReader"] = parsed
    try:
        yield
        if not parsed.cache_info().hits:
            _complain(
                "transformers was expected to ask gguf.GGUFReader for the same file more than "
                "once, it did not: gguf_parsed_once in wildmerge/patches.py saves nothing any more."
            )
    finally:
        vars(gguf)["GGUFReader"] = original


def _complain(message: str) -> None:
    print(f"WARNING: {message} Remove that patch or adapt it.", file=sys.stderr, flush=True)
