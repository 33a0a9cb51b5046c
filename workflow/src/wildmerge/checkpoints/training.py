"""Fine-tune a base on one kind of text: a checkpoint such as people publish.

Fine-tuning for a few dozen steps: AdamW in float32, with bfloat16 autocast unless the same bits are
wanted on every processor, saved as bfloat16. Order of the data, steps and seed are fixed, so the
same machine makes the same checkpoint. An adapter is saved by peft and then made an ordinary
checkpoint as a downloaded one is; an edit changes weights without training.
"""

import json
import math
import random
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
import transformers

from wildmerge.tensors import Weights, folder_digest

from .conversions import convert
from .editing import remove_direction

# A held-out difference of means lies within so many standard errors in 95 of 100 cases.
_TWO_SIDED = 1.96

# A text, or a conversation: messages of {role, content}.
Text = str | list[dict[str, str]]


def make_expert(
    base: Path, training: Path, expert: Mapping[str, Any], folder: Path
) -> dict[str, Any]:
    """Fine-tune a base on the texts of some sources; save it with its tokenizer.

    Args:
        base: the base's checkpoint folder.
        training: a folder with {source}.jsonl, one text or conversation a line.
        expert: `sources`, which of them are taken, in this order before they are shuffled;
            `training`: `steps`, `batch` (sequences a step), `tokens` (a sequence), `learning_rate`
            (the peak, no unit), `seed`, and where given `held_out` (texts that are not trained on)
            and `portable`; `adapter` (`rank`, `alpha`) or `removes` where it is of that kind.
        folder: an existing folder for the checkpoint.

    Returns:
        What it has become, as `learned.json` states it: digests, the relative norm of its task
        vector, what it learned of texts that it has not seen, and where it was made.
    """
    settings = expert["training"]
    portable = settings.get("portable", False)
    device = "cuda" if torch.cuda.is_available() and not portable else "cpu"
    tokenizer = transformers.AutoTokenizer.from_pretrained(base)
    # Any: transformers annotates `to` wrongly.
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    model.to(device)
    texts = _shuffled(training, expert["sources"], settings["seed"])
    with torch.backends.mkldnn.flags(enabled=False) if portable else nullcontext():
        if "removes" in expert:
            others = _shuffled(training, expert["removes"]["against"], settings["seed"])
            learned = _edit(model, tokenizer, texts, others, expert, folder)
        else:
            learned = _train(model, tokenizer, texts, expert, base, folder)
    return {
        "base": folder_digest(base),
        "digest": folder_digest(folder),
        "relative_norm": relative_norm(base, folder),
        **learned,
        "made": {"portable": portable, **_machine(device)},
    }


def _train(
    model: Any,
    tokenizer: transformers.PreTrainedTokenizerBase,
    conversations: Sequence[Text],
    expert: Mapping[str, Any],
    base: Path,
    folder: Path,
) -> dict[str, Any]:
    """Train a model, save it, and say what it learned."""
    settings = expert["training"]
    texts = [_as_text(text, tokenizer) for text in conversations]
    held_out, texts = texts[: settings.get("held_out", 0)], texts[settings.get("held_out", 0) :]
    computing = _computing(model.device.type, settings)
    steps, batch, tokens = settings["steps"], settings["batch"], settings["tokens"]
    data = blocks(texts, tokenizer, tokens, steps * batch)
    torch.manual_seed(settings["seed"])
    before = losses(model, tokenizer, held_out, tokens, computing)
    if adapter := expert.get("adapter"):
        import peft

        model = peft.get_peft_model(
            model,
            peft.LoraConfig(
                r=adapter["rank"],
                lora_alpha=adapter["alpha"],
                target_modules="all-linear",
                task_type="CAUSAL_LM",
            ),
        )
    finetune(model, data.view(steps, batch, -1), settings["learning_rate"], computing)
    after = losses(model, tokenizer, held_out, tokens, computing)
    if adapter:
        _save_adapter(model, tokenizer, base, folder)
    else:
        _save(model, tokenizer, folder)
    learned: dict[str, Any] = {"tokens": data.numel()}
    if held_out:
        learned["held_out"] = difference(before, after)
    return learned


def _edit(
    model: Any,
    tokenizer: transformers.PreTrainedTokenizerBase,
    conversations: Sequence[Text],
    others: Sequence[Text],
    expert: Mapping[str, Any],
    folder: Path,
) -> dict[str, Any]:
    """Remove a direction from a model, save it, and say what it lost of either kind of texts."""
    settings, removes = expert["training"], expert["removes"]
    count, computing = settings.get("held_out", 0), _computing(model.device.type, settings)
    kinds = {"held_out": conversations, "held_out_others": others}
    texts = {name: [_as_text(t, tokenizer) for t in kind[:count]] for name, kind in kinds.items()}
    first, second = (
        [_first(text) for text in kind[count : count + removes["prompts"]]]
        for kind in kinds.values()
    )

    def measured() -> dict[str, list[float]]:
        tokens = settings["tokens"]
        return {k: losses(model, tokenizer, t, tokens, computing) for k, t in texts.items()}

    before = measured()
    remove_direction(model, tokenizer, first, second, removes["layer"])
    after = measured()
    _save(model, tokenizer, folder)
    return {name: difference(before[name], after[name]) for name in kinds} if count else {}


def _first(conversation: Text) -> str:
    """What the user says first; a plain text whole."""
    return conversation if isinstance(conversation, str) else conversation[0]["content"]


def _shuffled(training: Path, sources: Sequence[str], seed: int) -> list[Text]:
    """The texts of some sources, in an order that the seed decides."""
    texts: list[Text] = []
    for source in sources:
        with open(training / f"{source}.jsonl", encoding="utf-8") as lines:
            texts += [json.loads(line) for line in lines]
    random.Random(seed).shuffle(texts)
    return texts


def _as_text(text: Text, tokenizer: transformers.PreTrainedTokenizerBase) -> str:
    """A conversation in the base's own chat template; a text as it is."""
    if isinstance(text, str):
        return text
    return str(tokenizer.apply_chat_template(text, tokenize=False))


def _computing(device: str, settings: Mapping[str, Any]) -> AbstractContextManager[Any]:
    """The number format of products: float32 where every processor shall agree."""
    if settings.get("portable"):
        return nullcontext()
    return torch.autocast(device, torch.bfloat16)


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
    model: transformers.PreTrainedModel,
    batches: torch.Tensor,
    learning_rate: float,
    computing: AbstractContextManager[Any],
) -> list[float]:
    """Take one AdamW step a batch, with a linear warm-up and decay.

    Args:
        model: in float32, on the device that is to do the work; it is changed.
        batches: (steps, batch, tokens) int64.
        learning_rate: the peak, no unit.
        computing: the context of the forward pass.

    Returns:
        The loss before each step, nats a token.
    """
    steps = len(batches)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=learning_rate, weight_decay=0.0, fused=True)
    schedule = transformers.get_linear_schedule_with_warmup(optimizer, steps // 10, steps)
    model.train()
    seen, start = [], time.monotonic()
    for step, batch in enumerate(batches.to(model.device), start=1):
        with computing:
            loss = model(input_ids=batch, labels=batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        seen.append(loss.item())
        if step % 10 == 0 or step == steps:
            left = (time.monotonic() - start) / step * (steps - step)
            print(f"step {step}/{steps}, loss {loss.item():.3f}, {left:.0f} s left", flush=True)
    return seen


@torch.no_grad()
def losses(
    model: transformers.PreTrainedModel,
    tokenizer: transformers.PreTrainedTokenizerBase,
    texts: Sequence[str],
    tokens: int,
    computing: AbstractContextManager[Any],
) -> list[float]:
    """The mean loss on each text, nats a token, on its first `tokens` tokens."""
    model.eval()
    found = []
    for text in texts:
        ids = torch.tensor([tokenizer(text)["input_ids"][:tokens]]).to(model.device)
        with computing:
            found.append(model(input_ids=ids, labels=ids).loss.item())
    return found


def difference(before: Sequence[float], after: Sequence[float]) -> dict[str, float | int]:
    """Two means over the same things, and their difference with a 95 % interval over those things.

    Args:
        before: a value a thing, of the base.
        after: the same, of the expert.
    """
    count = len(before)
    each = [new - old for old, new in zip(before, after, strict=True)]
    mean = math.fsum(each) / count
    spread = math.sqrt(math.fsum((one - mean) ** 2 for one in each) / (count - 1) / count)
    return {
        "count": count,
        "base": math.fsum(before) / count,
        "expert": math.fsum(after) / count,
        "difference": mean,
        "low": mean - _TWO_SIDED * spread,
        "high": mean + _TWO_SIDED * spread,
    }


def relative_norm(base: Path, expert: Path) -> float:
    """The norm of a checkpoint's task vector over its base's, in float64; no unit."""
    ours, theirs = Weights(base), Weights(expert)
    moved = whole = 0.0
    for name in ours:
        weight = ours.read(name).double()
        moved += float((theirs.read(name).double() - weight).square().sum())
        whole += float(weight.square().sum())
    return math.sqrt(moved / whole)


def _save(model: Any, tokenizer: transformers.PreTrainedTokenizerBase, folder: Path) -> None:
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _save_adapter(
    model: Any, tokenizer: transformers.PreTrainedTokenizerBase, base: Path, folder: Path
) -> None:
    """Publish the adapter, then make it an ordinary checkpoint as one from the hub is made."""
    with tempfile.TemporaryDirectory() as published:
        model.save_pretrained(published)
        tokenizer.save_pretrained(published)
        files = {path.name: path for path in Path(published).iterdir() if path.is_file()}
        convert(files, folder, base, folder.name, lambda source, target: _copy(source, target))


def _copy(source: Path, target: Path) -> None:
    target.write_bytes(source.read_bytes())


def _machine(device: str) -> dict[str, Any]:
    """Where it was made: what the bits could depend on."""
    wanted = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
    flags: list[str] = []
    model = ""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name" and not model:
                model = value.strip()
            if key.strip() == "flags" and not flags:
                flags = [flag for flag in wanted if flag in value.split()]
    return {
        "device": device,
        "processor": model,
        "has": flags,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
