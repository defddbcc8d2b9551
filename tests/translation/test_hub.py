"""Models of the Hugging Face Hub, from a cache on the disk or a fake of the download; errors are one line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx2
import huggingface_hub
import pytest
from huggingface_hub import errors

from tests.tiny import TINY
from unit.domains import PerDomain
from unit.errors import ConfigError, ModelError
from unit.model.networks import build_autoencoders
from unit.translation.translator import MODEL_FILE, Translator

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def cached_model(cache: Path, repository: str = "someone/streets") -> Path:
    """Lay a model out as huggingface_hub's cache does, and return the file."""
    folder = cache / f"models--{repository.replace('/', '--')}"
    file = folder / "snapshots" / COMMIT / MODEL_FILE
    Translator(build_autoencoders(TINY.model), TINY, PerDomain("sunny", "rainy"), 7, "cpu").save(file)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(COMMIT)
    return file


def test_only_the_model_file_of_the_revision_is_downloaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file, asked = cached_model(tmp_path), []

    def download(*arguments: Any, **options: Any) -> str:
        asked.append((arguments, options))
        return str(file)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    translator = Translator.from_pretrained("someone/streets", revision="v2", device="cpu", precision="fp32", tile=64)
    assert (translator.step, translator.names.b, translator.tile, translator.precision) == (7, "rainy", 64, "fp32")
    Translator.from_pretrained("someone/streets")
    # without `token`, huggingface_hub takes the one of the environment or of `hf auth login`
    assert asked == [(("someone/streets", MODEL_FILE), {"revision": revision}) for revision in ("v2", None)]


def test_without_a_connection_the_cache_is_used(tmp_path: Path) -> None:
    cached_model(tmp_path)
    code = """
import sys
from unit import Translator
from unit.errors import ModelError
print(Translator.from_pretrained("someone/streets", device="cpu").step)
try:
    Translator.from_pretrained("someone/else", device="cpu")
except ModelError as error:
    print(error)
"""
    environment = os.environ | {"HF_HUB_CACHE": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    step, refusal = done.stdout.splitlines()
    assert step == "7"
    assert refusal == "someone/else: not in the cache, and the Hugging Face Hub can't be reached; check the connection"


def response(status: int) -> httpx2.Response:
    return httpx2.Response(status, request=httpx2.Request("GET", "https://example.invalid"))


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (errors.RepositoryNotFoundError("401\n\nLong text", response=response(401)), "no such repository .*HF_TOKEN"),
        (errors.GatedRepoError("403\nLong text", response=response(403)), "its owner must grant you access"),
        (errors.RevisionNotFoundError("404\n\nLong", response=response(404)), "no revision v9; give a branch"),
        (errors.EntryNotFoundError("404\n\nLong"), "no model.safetensors in the repository"),
        (errors.LocalEntryNotFoundError("No\nconnection"), "can't be reached; check the connection"),
        (errors.HfHubHTTPError("500\nServer", response=response(500)), r"can't be downloaded \(500 Server\)"),
        (httpx2.ReadTimeout("timed\nout"), r"can't be downloaded \(timed out\)"),
        (OSError(28, "No space left on device"), "No space left on device"),
    ],
)
def test_what_can_go_wrong_is_one_line(monkeypatch: pytest.MonkeyPatch, error: Exception, words: str) -> None:
    def fail(*_: Any, **__: Any) -> str:
        raise error

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fail)
    with pytest.raises(ModelError, match=r"^someone/streets: .*" + words) as caught:
        Translator.from_pretrained("someone/streets", "v9")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("name", ["runs/streets/model", "", "a b", "../x", "-x/y", "x\ny"])
def test_other_names_are_refused_without_asking(name: str) -> None:
    with pytest.raises(ModelError, match=r"not the name of a repository") as caught:
        Translator.from_pretrained(name)
    assert str(caught.value).isprintable()


def test_without_the_extra_the_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ConfigError, match="huggingface_hub is not installed; pip install huggingface_hub"):
        Translator.from_pretrained("someone/streets")
