"""Fixtures: a hub on this machine, pico checkpoints, repositories made of them."""

from pathlib import Path

import hub as hubs
import pico
import pytest
from wildmerge.sources import _hub_client as client
from wilds import CHUNK, Wild


@pytest.fixture(scope="session")
def family(tmp_path_factory) -> dict[str, Path]:
    """Bases of both families, tied and untied, and an expert of each. Read only."""
    folder = tmp_path_factory.mktemp("bases")
    made = {
        "llama": pico.llama(folder / "llama"),
        "untied": pico.llama(folder / "untied", tied=False),
        "qwen3": pico.qwen3(folder / "qwen3"),
        # Rows 257 to 259 are padding, as Qwen's last hundreds are.
        "padded": pico.qwen3(folder / "padded", vocab=260, tied=False),
    }
    return made | {f"{n}-expert": pico.expert(b, folder / f"{n}-x") for n, b in made.items()}


@pytest.fixture
def server(monkeypatch):
    with hubs.serve() as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.setattr(client, "PAUSE", 0.01)
        monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda seconds: None)
        # What arrives is kept in pieces of this size, 10 MB in earnest.
        monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", CHUNK)
        yield running


@pytest.fixture
def wild(server, family, tmp_path):
    """Make a repository: wild("llama")."""
    return lambda base="llama": Wild(server, family, tmp_path, base)
