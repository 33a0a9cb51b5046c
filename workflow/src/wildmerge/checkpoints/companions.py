"""The small files of a checkpoint: what stands beside its weights."""

# One of these is enough for a tokenizer.
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")
# All that a tokenizer can consist of.
TOKENIZER_FILES = (
    *TOKENIZERS,
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "merges.txt",
)
CHAT_TEMPLATES = ("chat_template.jinja", "chat_template.json")

CONFIG = "config.json"
GENERATION = "generation_config.json"
ADAPTER = "adapter_config.json"

# What a checkpoint is made of, apart from its weights.
SMALL_FILES = (CONFIG, GENERATION, ADAPTER, *TOKENIZER_FILES, *CHAT_TEMPLATES)

# What was done to a checkpoint to make it an ordinary one of its base's shapes.
CONVERSIONS = "conversions.json"
