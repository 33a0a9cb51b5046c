"""Edit a model without training: project a direction out of its weights.

What people call abliteration (Arditi et al. 2024, arXiv:2406.11717): the difference of the mean
activations on two kinds of prompts is a direction r; every matrix that writes into the residual
stream loses its part along it, W <- (I - r r^T) W, so that the model can no longer write it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import transformers

# The matrices that write into the residual stream, (hidden, ...); the embedding is kept, since a
# tied head reads with it.
_WRITERS = ("o_proj", "down_proj")


@torch.no_grad()
def remove_direction(
    model: Any,
    tokenizer: transformers.PreTrainedTokenizerBase,
    with_it: Sequence[Any],
    without_it: Sequence[Any],
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    """Project the direction that divides two kinds of prompts out of a model's weights.

    Args:
        model: in float32; it is changed.
        tokenizer: with a chat template.
        with_it: conversations; only their first message is asked.
        without_it: the same, of the other kind.
        settings: `layer`, after how many blocks the direction is read at the last token of the
            prompt, and `prompts`, how many of each kind it is read from; as many more are held out.

    Returns:
        `held_out`: how far apart the two kinds lie along the direction on prompts that it was not
        read from, in standard deviations of the base, before and after; with the interval of the
        difference over pairs of prompts.
    """
    count, layer = settings["prompts"], settings["layer"]
    kinds = [_first(with_it, 2 * count), _first(without_it, 2 * count)]
    before = [_activations(model, tokenizer, prompts, layer) for prompts in kinds]
    direction = before[0][:count].mean(0) - before[1][:count].mean(0)
    direction /= direction.norm()
    for name, module in model.named_modules():
        if name.rsplit(".", 1)[-1] in _WRITERS:
            weight = module.weight
            weight -= torch.outer(direction, direction @ weight)
    after = [_activations(model, tokenizer, prompts, layer) for prompts in kinds]
    along = [[(kind[count:] @ direction) for kind in kinds] for kinds in (before, after)]
    unit = torch.cat([kind - kind.mean() for kind in along[0]]).std()
    apart = [((one - other) / unit).tolist() for one, other in along]
    from .training import difference

    measure = "distance of the two kinds of prompts along the direction, sd of the base's"
    return {"held_out": {"measure": measure, **difference(*apart)}}


def _first(conversations: Sequence[Any], count: int) -> list[str]:
    """What the user says first."""
    return [conversation[0]["content"] for conversation in conversations[:count]]


def _activations(
    model: Any,
    tokenizer: transformers.PreTrainedTokenizerBase,
    prompts: Sequence[str],
    layer: int,
) -> torch.Tensor:
    """The residual stream after some blocks at the end of each prompt, (prompts, hidden) float32."""
    model.eval()
    found = []
    for prompt in prompts:
        ids = tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}],
            add_generation_prompt=True,
            return_tensors="pt",
            return_dict=True,
        )["input_ids"]
        states = model(input_ids=ids.to(model.device), output_hidden_states=True).hidden_states
        found.append(states[layer][0, -1].float().cpu())
    return torch.stack(found)
