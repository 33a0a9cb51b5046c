"""Merge an adapter into its base: peft's own arithmetic, one module in memory at a time.

What an adapter does to the base's weights is peft's to say: its module is built around the base's
weight in float32, the adapter is loaded into it and merged there. An adapter whose base was changed
before the training, by something that the adapter does not hold (random numbers, data, gradients,
quantisation), is refused by name.
"""

import copy
import dataclasses
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers

from wildmerge.tensors import Weights

from .compatibility import HEAD, Headers

PREFIX = "base_model.model."
_NAMED = ".default"  # the adapter's name, which peft leaves out when it saves
_SAVED = ".modules_to_save."  # whole tensors that were trained beside the adapter

# Kinds that are merged module by module, and the part of a tensor's name where the module's ends.
MERGED = {
    "LORA": (".lora_",),
    "LOHA": (".hada_",),
    "LOKR": (".lokr_",),
    "IA3": (".ia3_",),
    "OFT": (".oft_",),
    "BOFT": (".boft_",),
    "HRA": (".hra_",),
}

# Of LoRA: what these fields say is known here, or changes nothing in a finished adapter. Any other
# field has to be at its default.
_LORA_FIELDS = {
    "r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "fan_in_fan_out", "use_dora",
    "lora_bias", "bias", "init_lora_weights", "lora_dropout", "target_modules", "exclude_modules",
    "modules_to_save", "layers_to_transform", "layers_pattern", "loftq_config", "eva_config",
    "corda_config", "lora_ga_config", "runtime_config", "megatron_core", "megatron_config",
    "ensure_weight_tying",
}  # fmt: skip
# Of every kind: about the run, not about the weights.
_RUN_FIELDS = {
    "peft_type", "task_type", "base_model_name_or_path", "revision", "peft_version",
    "inference_mode", "auto_mapping",
}  # fmt: skip

# How LoRA's matrices were begun -> whether the base under them is known. `pissa` and `olora` take a
# part of the base's weight out before the training, by a decomposition that is made again here.
_BEGINNINGS = {
    True: True, False: True, None: True, "gaussian": True, "orthogonal": True, "eva": True,
    "mica": True, "pissa": True, "olora": True,
}  # fmt: skip
_UNKNOWN_BASE = {
    "pissa_niter": "a decomposition by random numbers",
    "corda": "the covariance of data",
    "loftq": "quantisation",
    "lora_ga": "gradients",
}


@dataclass(frozen=True)
class Updates:
    """What an adapter changes.

    Attributes:
        modules: path of a module of the base -> the adapter's tensors that change it.
        replaced: tensor of the base -> the adapter's tensor that takes its place.
        biases: whether the modules' biases change with their weights.
    """

    modules: Mapping[str, list[str]]
    replaced: Mapping[str, str]
    biases: bool

    def changed(self, base: Headers | Weights) -> list[str]:
        """The names of the base's tensors that change."""
        tensors = base.tensors if isinstance(base, Headers) else base
        names = [f"{path}.weight" for path in self.modules]
        if self.biases:
            names += [name for path in self.modules if (name := f"{path}.bias") in tensors]
        return [*names, *self.replaced]


def is_adapter(names: Iterable[str], has_config: bool) -> bool:
    """Whether these tensors are an adapter's.

    By its tensors first: an adapter can be called model.safetensors, and a full checkpoint can have
    an adapter_config.json left over.

    Args:
        names: of its tensors.
        has_config: whether an adapter_config.json lies beside them.
    """
    names = [*names]
    marked = any(".lora_" in name or name.startswith(PREFIX) for name in names)
    return marked or (has_config and not any(name.endswith("norm.weight") for name in names))


def plan_adapter(
    base: Headers, tensors: Mapping[str, tuple[str, tuple[int, ...]]], config: Mapping[str, Any]
) -> Updates:
    """What of a base an adapter changes, from headers alone.

    Args:
        base: the base's headers.
        tensors: the adapter's own, name -> (dtype, shape).
        config: its adapter_config.json.

    Raises:
        ValueError: in words, for what cannot be merged.
    """
    kind = str(config.get("peft_type", "LORA"))
    if kind not in MERGED:
        raise ValueError(
            f"its kind is {kind}, and what is merged here is {', '.join(MERGED)}. If peft can "
            "merge it (merge_and_unload), do so and save the whole model"
        )
    if kind == "LORA":
        _check_lora(config)
    modules: dict[str, list[str]] = defaultdict(list)
    replaced: dict[str, str] = {}
    for name, (_, shape) in tensors.items():
        plain = name.removeprefix(PREFIX).replace(_NAMED, "").replace(".base_layer.", ".")
        marks = [plain.index(mark) for mark in MERGED[kind] if mark in plain]
        if not marks:
            target = plain.replace(_SAVED, ".")
            if target not in base.tensors:
                raise ValueError(f"{name} would replace {target}, which the base has not")
            if shape != base.tensors[target][1]:
                raise ValueError(_other_shape(name, target, shape, base))
            replaced[target] = name
            continue
        path = plain[: min(marks)]
        if f"{path}.weight" not in base.tensors:
            tied = " (its head is tied to the embedding)" if f"{path}.weight" == HEAD else ""
            raise ValueError(f"{name} adapts {path}.weight, which the base has not{tied}")
        if ".lora_embedding_" in plain and HEAD not in base.tensors:
            raise ValueError(
                f"{name} adapts the embedding, to which the base's head is tied: a merge would "
                "change the head as well"
            )
        modules[path].append(name)
    for path, names in modules.items() if kind == "LORA" else ():
        _check_pair(path, names, base, tensors, bool(config.get("fan_in_fan_out")))
    return Updates(modules, replaced, bool(config.get("lora_bias")))


def _other_shape(name: str, target: str, shape: tuple[int, ...], base: Headers) -> str:
    return (
        f"{name} adapts {target} as if its shape were {list(shape)}, the base's is "
        f"{list(base.tensors[target][1])}"
    )


def _check_lora(config: Mapping[str, Any]) -> None:
    """Refuse what would change the weights in a way that is not known here."""
    import peft

    begun = config.get("init_lora_weights", True)
    if isinstance(begun, str):
        begun = begun.lower()
    if begun not in _BEGINNINGS:
        why = next((why for key, why in _UNKNOWN_BASE.items() if str(begun).startswith(key)), None)
        raise ValueError(
            f"its training began from another base (init_lora_weights: {begun}"
            + (f", by {why}" if why else "")
            + "), which cannot be made again. Take the base that was saved for it, or the merged "
            "model"
        )
    if not isinstance(config.get("lora_alpha"), int | float):
        raise ValueError("its adapter_config.json lacks lora_alpha, a number")
    defaults = {field.name: field.default for field in dataclasses.fields(peft.LoraConfig)}
    for name, value in config.items():
        if name in _LORA_FIELDS | _RUN_FIELDS or value in (None, False, [], {}):
            continue
        if value != defaults.get(name, dataclasses.MISSING):
            raise ValueError(f"it uses {name} ({value}), which is not merged here")


def _check_pair(
    path: str,
    names: list[str],
    base: Headers,
    tensors: Mapping[str, tuple[str, tuple[int, ...]]],
    transposed: bool,
) -> None:
    """Hold the shapes of LoRA's two matrices against the base's: (r, n) and (m, r) of (m, n)."""
    for down in names:
        if not (down.endswith(".lora_A.weight") or ".lora_embedding_A" in down):
            continue
        up = down.replace(".lora_A", ".lora_B").replace(".lora_embedding_A", ".lora_embedding_B")
        if up not in tensors:
            raise ValueError(f"{down} has no partner {up}")
        shape = (tensors[up][1][0], tensors[down][1][1])
        if ".lora_embedding_A" in down:
            shape = shape[::-1]
        wanted = base.tensors[f"{path}.weight"][1]
        if shape != wanted and not (transposed and shape == wanted[::-1]):
            raise ValueError(_other_shape(down, f"{path}.weight", shape, base))


class Merger:
    """Reads the base's tensors as an adapter changes them.

    Args:
        base: the base's weights.
        base_config: its config.json, from which the modules are built.
        adapter: the adapter's weights.
        updates: from `plan_adapter`.
        config: its adapter_config.json.
    """

    def __init__(
        self,
        base: Weights,
        base_config: Path,
        adapter: Weights,
        updates: Updates,
        config: Mapping[str, Any],
    ) -> None:
        self.base, self.adapter, self.updates = base, adapter, updates
        self.config = dict(config)
        self.changed = set(updates.changed(base))
        described = transformers.AutoConfig.from_pretrained(base_config.parent)
        with torch.device("meta"):
            self.model = transformers.AutoModelForCausalLM.from_config(described)

    def read(self, name: str) -> torch.Tensor:
        """A tensor of the merged model: the base's own, or in float32 where the adapter changes it.

        Raises:
            ValueError: in words, where peft cannot merge a module.
        """
        path, _, part = name.rpartition(".")
        if name in self.changed and path in self.updates.modules:
            return self._merge(path).state_dict()[part].detach()
        return self._before(name)

    def _before(self, name: str) -> torch.Tensor:
        """A tensor of the model that the adapter's matrices are added to."""
        if name in self.updates.replaced:
            return self.adapter.read(self.updates.replaced[name]).float()
        return self.base.read(name)

    def _merge(self, path: str) -> torch.nn.Module:
        """The module at `path` with the adapter merged into it, in float32."""
        import peft

        module = copy.deepcopy(self.model.get_submodule(path)).to_empty(device="cpu").float()
        own = {part: self._before(f"{path}.{part}").float() for part in module.state_dict()}
        module.load_state_dict(own)
        root = _nest(path, module)
        state = {
            name.replace(_NAMED, ""): self.adapter.read(name).float()
            for name in self.updates.modules[path]
        }
        peft.inject_adapter_in_model(self._settings(path, state), root)
        # Any: peft annotates a namedtuple without its names.
        outcome: Any = peft.set_peft_model_state_dict(root, state)
        if outcome.unexpected_keys:
            raise ValueError(f"peft has no place for {min(outcome.unexpected_keys)}")
        layer = root.get_submodule(path)
        layer.merge()  # type: ignore[operator]  # every layer of peft has it
        return layer.get_base_layer()  # type: ignore[operator]

    def _settings(self, path: str, state: Mapping[str, torch.Tensor]) -> Any:
        """Peft's settings of one module: the adapter's own, aimed at nothing else."""
        import peft

        kind = str(self.config.get("peft_type", "LORA"))
        settings_class = peft.PEFT_TYPE_TO_CONFIG_MAPPING[peft.PeftType(kind)]
        known = {field.name for field in dataclasses.fields(settings_class)}
        settings = {key: value for key, value in self.config.items() if key in known}
        settings |= {"target_modules": [path], "inference_mode": True}
        settings |= dict.fromkeys(
            {"exclude_modules", "modules_to_save", "layers_to_transform", "layers_pattern"} & known
        )
        if kind == "LORA":
            settings |= {"bias": "none", "lora_dropout": 0.0}
            if "r" not in settings:
                settings["r"] = next(len(t) for n, t in state.items() if ".lora_A." in n)
        if kind == "IA3":
            forward = self.config.get("feedforward_modules") or []
            inside = any(path == name or path.endswith(f".{name}") for name in forward)
            settings["feedforward_modules"] = [path] if inside else []
        return settings_class(**settings)


def _nest(path: str, module: torch.nn.Module) -> torch.nn.Module:
    """A module that has `module` at `path`, and nothing else: patterns of names fit as they did."""
    root = torch.nn.Module()
    *parents, last = path.split(".")
    place = root
    for name in parents:
        place.add_module(name, torch.nn.Module())
        place = place.get_submodule(name)
    place.add_module(last, module)
    return root
