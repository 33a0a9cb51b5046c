"""Fine-tune a base on one kind of text: a checkpoint such as people publish.

Full fine-tuning for a few dozen steps: AdamW in float32 with bfloat16 autocast, saved as bfloat16.
Order of the data, steps and seed are fixed, so the same machine makes the same checkpoint.
"""

import json
import random
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers


def make_expert(
    base: Path,
    training: Path,
    sources: Sequence[str],
    settings: Mapping[str, Any],
    folder: Path,
) -> None:
    """Fine-tune a base on the texts of some sources; save it with its tokenizer.

    Args:
        base: the base's checkpoint folder.
        training: a folder with {source}.jsonl, one text a line.
        sources: which of them are taken, in this order before they are shuffled.
        settings: `steps`, `batch` (sequences a step), `tokens` (a sequence), `learning_rate` (the
            peak, no unit) and `seed`.
        folder: an existing folder for the checkpoint.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tokenizer = transformers.AutoTokenizer.from_pretrained(base)
    # Any: transformers annotates `to` wrongly.
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    texts: list[str] = []
    for source in sources:
        with open(training / f"{source}.jsonl", encoding="utf-8") as lines:
            texts += [json.loads(line) for line in lines]
    random.Random(settings["seed"]).shuffle(texts)
    steps, batch = settings["steps"], settings["batch"]
    data = blocks(texts, tokenizer, settings["tokens"], steps * batch)
    torch.manual_seed(settings["seed"])
    finetune(model.to(device), data.view(steps, batch, -1), settings["learning_rate"])
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def blocks(
    texts: Sequence[str],
    tokenizer: transformers.PreTrainedTokenizerBase,
    tokens: int,
    count: int,
) -> torch.Tensor:
    """Join texts, divided by the end-of-text token, and cut them: (count, tokens) int64."""
    stream: list[int] = []
    while len(stream) < count * tokens:
        for text in texts:
            stream += [*tokenizer(text)["input_ids"], tokenizer.eos_token_id]
            if len(stream) >= count * tokens:
                break
    return torch.tensor(stream[: count * tokens]).view(count, tokens)


def finetune(
    model: transformers.PreTrainedModel, batches: torch.Tensor, learning_rate: float
) -> list[float]:
    """Take one AdamW step a batch, with a linear warm-up and decay.

    Args:
        model: in float32, on the device that is to do the work; it is changed.
        batches: (steps, batch, tokens) int64.
        learning_rate: the peak, no unit.

    Returns:
        The loss before each step, nats a token.
    """
    steps = len(batches)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=learning_rate, weight_decay=0.0, fused=True
    )
    schedule = transformers.get_linear_schedule_with_warmup(optimizer, steps // 10, steps)
    model.train()
    losses, start = [], time.monotonic()
    for step, batch in enumerate(batches.to(model.device), start=1):
        with torch.autocast(model.device.type, torch.bfloat16):
            loss = model(input_ids=batch, labels=batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        if step % 10 == 0 or step == steps:
            left = (time.monotonic() - start) / step * (steps - step)
            print(f"step {step}/{steps}, loss {loss.item():.3f}, {left:.0f} s left", flush=True)
    return losses
