"""Fine-tune a base on one kind of text: a checkpoint such as people publish.

Full fine-tuning for a few dozen steps: AdamW in float32 with bfloat16 autocast, saved as bfloat16.
Order of the data, steps and seed are fixed, so the same machine makes the same checkpoint.
"""

import json
import random
import time
from pathlib import Path

import torch
import transformers
from wildmerge.files import atomic_folder
from wildmerge.run.jobs import job


def blocks(texts: list[str], tokenizer, tokens: int, count: int) -> torch.Tensor:
    """Join texts, divided by the end-of-text token, and cut them: (count, tokens) int64."""
    stream = []
    while len(stream) < count * tokens:
        for text in texts:
            stream += [*tokenizer(text)["input_ids"], tokenizer.eos_token_id]
            if len(stream) >= count * tokens:
                break
    return torch.tensor(stream[: count * tokens]).view(count, tokens)


def finetune(model, batches: torch.Tensor, learning_rate: float) -> list[float]:
    """Take one AdamW step a batch, with a linear warm-up and decay.

    batches: (steps, batch, tokens) int64. Returns the loss before each step, nats a token.
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


def make_expert(base: Path, training: Path, sources: list[str], settings: dict, folder: Path):
    """Fine-tune the checkpoint in `base` on the texts of `sources`; save it with its tokenizer."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tokenizer = transformers.AutoTokenizer.from_pretrained(base)
    model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    texts = []
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


if __name__ == "__main__":
    what = f"finetune {snakemake.wildcards.trained}"
    with (
        job(snakemake.log[0], what, snakemake.threads),
        atomic_folder(snakemake.output[0]) as part,
    ):
        make_expert(
            Path(snakemake.input.base),
            Path(snakemake.input.training),
            snakemake.params.sources,
            snakemake.params.training,
            part,
        )
