"""Hub checkpoints from a cache laid out as the Hub client lays it out."""

from pathlib import Path

import pytest

from dipscope.errors import DipscopeError
from dipscope.interop import hub

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    from huggingface_hub import constants

    repo = tmp_path / "models--lab--tiny"
    snapshot = repo / "snapshots" / COMMIT
    blobs = repo / "blobs"
    blobs.mkdir(parents=True)
    for name in ("config.json", "model.safetensors", "tokenizer.json", "step100/config.json",
                 "step100/model.safetensors", "step200/config.json"):  # fmt: skip
        blob = blobs / name.replace("/", "-")
        blob.write_text(f"content of {name}")
        link = snapshot / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(blob)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(COMMIT)
    (repo / "refs" / "v1").write_text(COMMIT)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return snapshot


@pytest.mark.parametrize("revision", [None, "main", "v1", COMMIT])
def test_cached_model_is_found_offline(cache: Path, revision: str | None) -> None:
    folder = hub.resolve("lab/tiny", revision)
    assert folder.resolve() == cache.resolve()
    assert (folder / "model.safetensors").read_text() == "content of model.safetensors"


def test_subfolder_is_the_checkpoint(cache: Path) -> None:
    folder = hub.resolve("lab/tiny", None, "step100")
    assert (folder / "config.json").read_text() == "content of step100/config.json"


@pytest.mark.parametrize("subfolder", ["step200", "step300"])
def test_incomplete_folder_says_what_is_missing(cache: Path, subfolder: str) -> None:
    with pytest.raises(DipscopeError, match="safetensors") as caught:
        hub.resolve("lab/tiny", None, subfolder)
    assert f"lab/tiny/{subfolder}" in caught.value.where


@pytest.mark.parametrize(("repo", "revision"), [("lab/absent", None), ("lab/tiny", "v9")])
def test_unreachable_and_not_cached(cache: Path, repo: str, revision: str | None) -> None:
    with pytest.raises(DipscopeError, match="cannot be reached") as caught:
        hub.resolve(repo, revision)
    assert caught.value.exit_code == 1
    assert repo in str(caught.value) and "\n" not in str(caught.value)


def test_malformed_id(cache: Path) -> None:
    with pytest.raises(DipscopeError, match="no repository id"):
        hub.resolve("not/a/repo", None)
