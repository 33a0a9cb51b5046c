"""A model computed in single precision for a while, and a look for weights that are no numbers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

HALF = (torch.float16, torch.bfloat16)


@contextmanager
def single_precision(model: torch.nn.Module) -> Iterator[None]:
    """Let a model in half precision compute in float32, one module's weights at a time.

    Its own weights come back as they were, so the memory of one module is all that it takes.
    """
    swapped: list[tuple[torch.Tensor, torch.Tensor]] = []
    starts: list[int] = []

    @torch.inference_mode(False)
    def widen(module: torch.nn.Module, *_: object) -> None:
        starts.append(len(swapped))
        own = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
        for tensor in own:
            if tensor.dtype in HALF:
                swapped.append((tensor, tensor.data))
                tensor.data = tensor.data.float()

    def narrow(*_: object) -> None:
        start = starts.pop()
        for tensor, kept in reversed(swapped[start:]):
            tensor.data = kept
        del swapped[start:]

    modules = [
        module
        for module in model.modules()
        if any(True for _ in module.parameters(recurse=False))
        or any(True for _ in module.buffers(recurse=False))
    ]
    hooks = [module.register_forward_pre_hook(widen, prepend=True) for module in modules]
    hooks += [module.register_forward_hook(narrow, always_call=True) for module in modules]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for tensor, kept in reversed(swapped):
            tensor.data = kept


def not_finite(model: torch.nn.Module) -> str | None:
    """The name of the first parameter that holds NaN or an infinity; None if all are numbers."""
    for name, tensor in model.named_parameters():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            return name
    return None
