"""A pico configuration of every causal language model that transformers knows by name."""

import re

import torch
import transformers
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

KINDS = sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
VOCABULARY = 257
# Windows, chunks, kept and chosen keys: shorter than the inputs, longer than a trial.
REACH = 128

# Those that run by shared prefixes; all others run as `hf`, or are in NOT_RUN.
PACKED = set(
    """
    afmoe apertus arcee aria_text axk1 beam bert bert-generation biogpt bitnet cohere cohere2
    cohere2_moe ctrl cwm deepseek_v2 deepseek_v3 dots1 electra emu3 ernie ernie4_5 ernie4_5_moe
    exaone4 exaone_moe flex_olmo fuyu gemma gemma2 gemma3 gemma3_text gemma3n_text gemma4
    gemma4_text gemma4_unified_text glm glm4 glm4_moe glm4_moe_lite got_ocr2 gpt-sw3 gpt2
    gpt_bigcode gpt_neox granite granitemoe granitemoeshared helium hunyuan_v1_dense
    hunyuan_v1_moe hy_v3 hyperclovax internlm3 iquestcoder jais2 jetmoe kolibri1 laguna lfm2
    llama llama4 llama4_text mellum minicpm3 minimax_m2 ministral ministral3 mistral mixtral
    mllama modernbert-decoder nanochat nemotron olmo olmo2 olmo3 olmoe opt persimmon phi phi3
    phi4_multimodal phimoe qwen2 qwen2_moe qwen3 qwen3_moe roc_bert seed_oss smollm3 solar_open
    stablelm starcoder2 vaultgemma youtu
    """.split()  # noqa: SIM905, a list would take a page
)
# What transformers itself can't make or run from a pico configuration, or not without more
# packages, and models whose smallest form is too large for a test.
NOT_RUN = {
    *("bailing_hybrid", "blt", "cohere_compass_text", "dbrx", "dots3_note", "gemma3n"),
    *("gemma4_assistant", "gemma4_unified_assistant", "jamba", "longcat_flash", "musicgen"),
    *("musicgen_melody", "qwen4_exp", "qwen4_exp_text", "recurrent_gemma", "xlstm", "zamba"),
}

# The first pattern that fits a setting's whole name gives its value.
SIZES = {
    r"vocab_size|.*_vocab_size|vocab_size_.*": VOCABULARY,
    r"(pad|bos|eos|sep|cls|decoder_start|image|audio|video)_token_(id|index)": 0,
    r"mamba_chunk_size|chunk_size_.*": None,
    r"hidden_size|d_model|n_embd|embedding_size|word_embed_proj_dim|emb_dim|dim": 32,
    r"(text_)?config|.*hidden_act.*|layer_types|mlp_layer_types": None,
    r"num_hidden_layers|n_layers?|num_layers|decoder_layers|encoder_layers|num_decoder_layers": 2,
    r"num_attention_heads|n_heads?|num_heads|.*coder_attention_heads|attention_heads": 4,
    r"num_key_value_heads|num_kv_heads|n_head_kv|.*_num_key_value_heads|swa_num_attention_heads": 2,
    r"(global_|swa_|v_|attention_)?head_dim|d_kv|qk_rope_head_dim|qk_nope_head_dim|v_head_dim": 8,
    r"qk_head_dim": 16,
    r"rotary_dim": 8,
    r"max_window_layers": 1,
    r"index_head_dim|indexer_head_dim": 8,
    r"index_n_heads|indexer_n_heads": 4,
    r"(sliding|attention)_window(_size|_len)?|window_size|.*chunk_size|.*chunk_length": REACH,
    r"sliding_window_size|local_attention(_window_len)?|keep_window_size|index_topk": REACH,
    r"index_block_size|block_size": 16,
    r"index_topk_blocks": 8,
    r"use_sliding_window|is_decoder": True,
    r"full_attention_interval": 2,
    r".*lora_rank|.*_rank": 16,
    r"num_experts_per_tok|moe_topk|top_k_experts|moe_k|num_experts_per_token|n_experts_per_tok": 2,
    r"n_group|topk_group|n_groups": 1,
    r"(num|n)(_local|_routed)?_experts|moe_num_experts|num_experts.*": 4,
    r"(num|n)_shared_experts|.*num_shared_experts": 1,
    r"first_k_dense_replace": 1,
    r".*(intermediate|ffn)_(size|dim)|n_inner|d_ff|ffn_hidden_size|mlp_hidden_size": 48,
    r"max_position_embeddings|n_positions|n_ctx|max_target_positions|seq_length|max_seq_len": 512,
    r"initializer_range|init_std|initializer_factor": 0.4,
    r"query_pre_attn_scalar": 8,
}


def settings(default):
    """What a pico configuration says, by the names that the default one has."""
    chosen = {}
    for name, value in vars(default).items():
        if isinstance(value, transformers.PreTrainedConfig):
            chosen[name] = {"model_type": value.model_type} | settings(value)
            continue
        for pattern, small in SIZES.items():
            if re.fullmatch(pattern, name):
                if small is not None and (value is None or isinstance(value, int | float)):
                    chosen[name] = small
                break
    if "kv_lora_rank" in chosen:
        chosen["num_key_value_heads"] = chosen["num_attention_heads"]
    return chosen | MORE.get(default.model_type, {})


# What one setting says of another.
MORE: dict[str, dict] = {
    "bamba": {"attn_layer_indices": [1], "mamba_n_heads": 8, "mamba_d_head": 8},
    "granitemoehybrid": {
        "layer_types": ["mamba", "attention"],
        "mamba_n_heads": 8,
        "mamba_d_head": 8,
    },
    "dots3_note_text": {"num_key_value_heads": 4},
    # Its own attention chooses blocks at random.
    "big_bird": {"attention_type": "original_full"},
    "jamba": {"attn_layer_offset": 1, "attn_layer_period": 2},
    "kimi_linear": {"layer_types": ["linear_attention", "full_attention"]},
    "lfm3": {"layer_types": ["conv", "full_attention"]},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "mamba2": {"num_heads": 8, "head_dim": 8},
    "zaya": {"num_experts_per_tok": 1},
    "reformer": {"hash_seed": 0, "axial_pos_embds_dim": (16, 16), "axial_pos_shape": (16, 32)},
    "zamba": {"layers_block_type": ["mamba", "hybrid"]},
    "zamba2": {"layers_block_type": ["mamba", "hybrid"]},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    "qwen3_5_text": {"layer_types": ["linear_attention", "full_attention"]},
    "qwen3_5_moe_text": {"layer_types": ["linear_attention", "full_attention"]},
    "qwen3_next": {"layer_types": ["linear_attention", "full_attention"]},
    "xmod": {"default_language": "en_XX"},
    "gemma3n_text": {"num_kv_shared_layers": 0},
    "gemma4_assistant": {"hidden_size_per_layer_input": 0},
}


def build(kind, sinks=0):
    """The model, with large weights: attention that looks at the wrong token changes much.

    Args:
        kind: transformers' name of it.
        sinks: value of attention sinks, where it has any.
    """
    config = CONFIG_MAPPING[kind](**settings(CONFIG_MAPPING[kind]()))
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    for name, parameter in model.named_parameters():
        if is_sink(name):
            parameter.data.fill_(sinks)
    return model


def is_sink(name):
    """Whether a parameter is an attention's sink."""
    return bool(re.search(r"sinks?(_bias)?$", name))
