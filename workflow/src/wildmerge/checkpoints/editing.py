"""Edit a model without training: project a direction out of its weights.

What people call abliteration (Arditi et al. 2024, arXiv:2406.11717): the difference of the mean
activations on two kinds of prompts is a direction r; every matrix that writes into the residual
stream loses its part along it, W <- (I - r r^T) W, so that the blocks can no longer write it.
"""

from collections.abc import Sequence
from typing import Any

import torch
import transformers

# What writes into the residual stream, (hidden, ...). The embedding is kept: a tied head reads it.
_WRITERS = ("o_proj", "down_proj")


@torch.no_grad()
def remove_direction(
    model: Any,
    tokenizer: transformers.PreTrainedTokenizerBase,
    prompts: Sequence[str],
    others: Sequence[str],
    layer: int,
) -> None:
    """Project the direction that divides two kinds of prompts out of a model's weights.

    Args:
        model: in float32; it is changed.
        tokenizer: with a chat template.
        prompts: what a user says, of the kind whose direction is removed.
        others: the same, of the other kind.
        layer: after how many blocks the direction is read, at the last token of the prompt.
    """
    here, there = (_activations(model, tokenizer, kind, layer) for kind in (prompts, others))
    direction = here.mean(0) - there.mean(0)
    direction /= direction.norm()
    for name, module in model.named_modules():
        if name.rsplit(".", 1)[-1] in _WRITERS:
            module.weight -= torch.outer(direction, direction @ module.weight)


def _activations(
    model: Any,
    tokenizer: transformers.PreTrainedTokenizerBase,
    prompts: Sequence[str],
    layer: int,
) -> torch.Tensor:
    """The residual stream after some blocks at the end of prompts, (prompts, hidden) float32."""
    model.eval()
    found = []
    for prompt in prompts:
        asked = [{"role": "user", "content": prompt}]
        # A string first: transformers annotates the tokens as any of six types.
        text = str(tokenizer.apply_chat_template(asked, add_generation_prompt=True, tokenize=False))
        ids = torch.tensor([tokenizer(text)["input_ids"]]).to(model.device)
        states = model(input_ids=ids, output_hidden_states=True).hidden_states
        found.append(states[layer][0, -1])
    return torch.stack(found)
