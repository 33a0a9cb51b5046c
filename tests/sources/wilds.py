"""A repository in the wild on the tests' own hub: judged from its headers, fetched, measured."""

import json
from pathlib import Path

import hub as hubs
import pytest
import torch
from safetensors.torch import load_file, save_file
from wildmerge import WildmergeError
from wildmerge.checkpoints.verdict import measure
from wildmerge.sources.fetch import fetch_checkpoint
from wildmerge.sources.preflight import judge_rows

SINGLE = "model.safetensors"
CHUNK = 64  # bytes


class Wild:
    """One repository `who/it`, made of an expert's files, and its base `meta/base`."""

    def __init__(self, server, family, tmp_path, base):
        self.server, self.base = server, family[base]
        self.target = tmp_path / "checkpoints" / "it"
        self.repository = hubs.Repository(hubs.from_folder(family[f"{base}-expert"]))
        server.repositories["who/it"] = self.repository
        server.repositories["meta/base"] = hubs.Repository(hubs.from_folder(self.base))

    @property
    def files(self) -> dict[str, bytes]:
        return self.repository.files

    @property
    def commit(self) -> str:
        return self.repository.commit

    def tensors(self) -> dict[str, torch.Tensor]:
        path = self.target.parent / "scratch.safetensors"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(self.files[SINGLE])
        return load_file(path)

    def put(self, tensors: dict[str, torch.Tensor], name=SINGLE) -> None:
        path = self.target.parent / "scratch.safetensors"
        path.parent.mkdir(exist_ok=True)
        save_file({n: t.contiguous() for n, t in tensors.items()}, path)
        self.files[name] = path.read_bytes()

    def config(self, remove=(), **changes) -> None:
        config = json.loads(self.files["config.json"]) | changes
        kept = {key: value for key, value in config.items() if key not in remove}
        self.files["config.json"] = json.dumps(kept).encode()

    def row(self, **changes) -> dict:
        row = {"base": "pico", "model": "it", "repo": "who/it", "revision": self.commit}
        return row | {"admit": ""} | changes

    def preflight(self, **changes):
        base = self.row(model="base", repo="meta/base", revision="")
        return judge_rows([base, self.row(**changes)])[1]

    def fetch(self, **options) -> dict[str, torch.Tensor]:
        """Fetch it; returns its tensors by name, whatever shards they lie in."""
        options = {"base": self.base} | options
        revision = options.pop("revision", self.commit)
        fetch_checkpoint("who/it", revision, self.target, **options)
        assert leftovers(self.target) == []
        return {n: t for f in self.target.glob("*.safetensors") for n, t in load_file(f).items()}

    def verdict(self) -> dict:
        return measure(self.base, self.target, self.row())

    def conversions(self) -> list[str]:
        return json.loads((self.target / "conversions.json").read_text())["conversions"]

    def refused(self, match: str, **options) -> None:
        """Fetching fails with a message that matches, and leaves nothing under the final name."""
        with pytest.raises(WildmergeError, match=match):
            self.fetch(**options)
        assert not self.target.exists()


def leftovers(target: Path) -> list[str]:
    return sorted(p.name for p in target.parent.glob(f".{target.name}*"))
