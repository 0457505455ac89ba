"""Checkpoints and datasets from the Hugging Face Hub, or from its local cache when there is no network."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from dipscope.errors import DipscopeError
from dipscope.interop import listing

# Weights as safetensors only: pickled weights are code.
_PATTERNS = ("*.safetensors", "*.safetensors.index.json", "*.json", "*.jinja", "*.model", "*.txt")


def resolve(repo: str, revision: str | None, subfolder: str | None = None) -> Path:
    """The local directory of a model repository, downloaded if the cache does not hold it.

    Args:
        repo: repository id, `owner/name`.
        revision: branch, tag or commit; None is the default branch.
        subfolder: the folder inside the repository that holds the checkpoint, for example `step100`.

    Returns:
        The directory inside the Hub's cache that holds `config.json` and the safetensors.

    Raises:
        DipscopeError: the repository, revision or folder does not exist, cannot be reached and is not
            cached, or holds no safetensors.
    """
    from huggingface_hub import snapshot_download

    where = _where(repo, revision)
    prefix = f"{subfolder.strip('/')}/" if subfolder else ""
    with _explained(where, "model"):
        patterns = [prefix + pattern for pattern in _PATTERNS]
        root = snapshot_download(repo, revision=revision, allow_patterns=patterns, token=_token())
    folder = Path(root) / prefix
    missing = [p for p in ("config.json", "*.safetensors") if not any(folder.glob(p))]
    if missing:
        raise DipscopeError(
            f"there is no {' and no '.join(missing)}",
            f"{where}/{prefix}" if prefix else where,
            "Check the subfolder; if a download was cut short, connect and run again.",
        )
    return folder


def resolve_dataset(
    repo: str, revision: str | None = None, file: str | None = None, sha256: str | None = None
) -> tuple[list[Path], str]:
    """The table files of a dataset repository, downloaded if the cache does not hold them.

    Only data files are fetched; a loading script of the repository is never run.

    Args:
        repo: repository id, `owner/name`.
        revision: branch, tag or commit; None is the default branch.
        file: a file of the repository, or a glob; None takes its only table.
        sha256: checksum that the one file must have.

    Returns:
        The files inside the Hub's cache, in reading order, and the commit they belong to.

    Raises:
        DipscopeError: repository, revision or file do not exist or cannot be reached and are not cached;
            the repository holds several tables; the checksum is another.
    """
    from huggingface_hub import hf_hub_download, snapshot_download

    where = _where(repo, revision)
    if file is not None:
        listing.inside(file, where)
    with _explained(where, "dataset"):
        # A file named in full needs no listing, and none of the network if its commit is pinned and cached.
        if file is not None and listing.suffix(file) and not set(file) & set("*?["):
            got = hf_hub_download(repo, file, repo_type="dataset", revision=revision, token=_token())
            root, names = _up(Path(got), file), [file]
        else:
            names = listing.choose(_listing(repo, revision), file, where)
            got = snapshot_download(
                repo, repo_type="dataset", revision=revision, allow_patterns=_literal(names), token=_token()
            )
            root = Path(got)
    paths = [_within(root, name, where) for name in names]
    if sha256 is not None:
        listing.verify(dict(zip(names, paths, strict=True)), sha256, where)
    return paths, root.name


def inner_name(path: Path) -> str:
    """The name inside its repository of a file that `resolve_dataset` returned."""
    parts = path.parts
    return "/".join(parts[len(parts) - parts[::-1].index("snapshots") + 1 :])


def _listing(repo: str, revision: str | None) -> list[str]:
    """Names of the files of a dataset repository; of its cached ones when the Hub cannot be reached."""
    import httpx2
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    try:
        return list(HfApi(token=_token()).list_repo_files(repo, repo_type="dataset", revision=revision))
    except (httpx2.TransportError, OfflineModeIsEnabled, HfHubHTTPError) as error:
        if isinstance(error, HfHubHTTPError) and error.response.status_code < 500:
            raise
        unreached = error
    try:
        # With no pattern to match, the cached snapshot is returned whatever part of it is there.
        cached = snapshot_download(
            repo, repo_type="dataset", revision=revision, allow_patterns=[], local_files_only=True
        )
    except LocalEntryNotFoundError as error:
        raise error from unreached
    return [p.relative_to(cached).as_posix() for p in Path(cached).rglob("*") if p.is_file()]


def _literal(names: list[str]) -> list[str]:
    """Names as patterns that match nothing else."""
    return ["".join(f"[{c}]" if c in "*?[" else c for c in name) for name in names]


def _within(root: Path, name: str, where: str) -> Path:
    """A file of a snapshot, whose content must lie inside the Hub's cache."""
    listing.inside(name, where)
    path = root / name
    if not path.is_file():
        raise DipscopeError(
            f"the file '{name}' is not in the cache", where, "Connect and run again.", fault=True
        )
    cache = root.parents[2].resolve()  # cache / datasets--owner--name / snapshots / commit
    if not path.resolve().is_relative_to(cache):
        raise DipscopeError(
            f"the file '{name}' points out of the Hub's cache", where, "Remove that cache entry."
        )
    return path


def _up(path: Path, name: str) -> Path:
    return path.parents[len(Path(name).parts) - 1]


def _where(repo: str, revision: str | None) -> str:
    return f"{repo}@{revision}" if revision else repo


def _token() -> str | Literal[False]:
    """The token of the environment: none that is stored elsewhere is sent."""
    return os.environ.get("HF_TOKEN") or False


@contextmanager
def _explained(where: str, noun: str) -> Iterator[None]:
    """Say what the Hub's client raises in one line each."""
    import httpx2
    from huggingface_hub.errors import (
        DisabledRepoError,
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RemoteEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        yield
    except GatedRepoError:
        raise DipscopeError(
            "the repository asks for its terms to be accepted",
            where,
            "Accept them on its page, then set HF_TOKEN.",
        ) from None
    except RepositoryNotFoundError:
        raise DipscopeError(
            f"there is no such {noun} repository on the Hub, or it is private",
            where,
            "Check the name; for a private one set HF_TOKEN.",
        ) from None
    except RevisionNotFoundError:
        raise DipscopeError("there is no such revision", where, "Check the branch, tag or commit.") from None
    except RemoteEntryNotFoundError as error:
        name = str(error.response.url.path).rpartition("/resolve/")[2].partition("/")[2]
        raise DipscopeError(
            f"there is no file '{name}'" if name else "there is no such file",
            where,
            "Check the file and the revision.",
        ) from None
    except DisabledRepoError:
        raise DipscopeError("the repository was disabled by the Hub", where, "Use another source.") from None
    except HFValidationError:
        raise DipscopeError("this is no repository id", where, "Ids look like owner/name.") from None
    except (LocalEntryNotFoundError, httpx2.TransportError, ConnectionError, TimeoutError) as error:
        raise DipscopeError(
            f"the Hub cannot be reached and the cache does not hold the {noun} ({_reason(error)})",
            where,
            "Connect and run again, or give downloaded files as `path`.",
            fault=True,
        ) from None
    except (HfHubHTTPError, OSError) as error:
        raise DipscopeError(
            f"the {noun} could not be fetched ({_reason(error)})",
            where,
            "Nothing of it was used. Run again.",
            fault=True,
        ) from None


def _reason(error: BaseException) -> str:
    """The cause of a failure in a few words."""
    from huggingface_hub.errors import OfflineModeIsEnabled

    cause = error.__cause__ or error
    if isinstance(cause, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set"
    text = " ".join((str(cause).strip() or type(cause).__name__).splitlines()[0].split())
    return text if len(text) <= 160 else f"{text[:159]}…"
