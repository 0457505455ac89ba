"""Checkpoints from the Hugging Face Hub, or from its local cache when there is no network."""

from __future__ import annotations

from pathlib import Path

from dipscope.errors import DipscopeError

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
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    where = f"{repo}@{revision}" if revision else repo
    prefix = f"{subfolder.strip('/')}/" if subfolder else ""
    try:
        root = snapshot_download(
            repo, revision=revision, allow_patterns=[prefix + pattern for pattern in _PATTERNS]
        )
    except GatedRepoError:
        raise DipscopeError(
            "the repository asks for a licence to be accepted",
            where,
            "Accept it on its page, then set HF_TOKEN.",
        ) from None
    except RepositoryNotFoundError:
        raise DipscopeError(
            "there is no such repository on the Hub, or it is private",
            where,
            "Check the name; for a private one set HF_TOKEN.",
        ) from None
    except RevisionNotFoundError:
        raise DipscopeError("there is no such revision", where, "Check the branch, tag or commit.") from None
    except HFValidationError:
        raise DipscopeError("this is no repository id", where, "Ids look like owner/name.") from None
    except (LocalEntryNotFoundError, HfHubHTTPError, ConnectionError, TimeoutError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DipscopeError(
            f"the Hub cannot be reached and the cache does not hold the model ({reason})",
            where,
            "Connect and run again, or give a downloaded folder as `path`.",
            fault=True,
        ) from None
    folder = Path(root) / prefix
    missing = [p for p in ("config.json", "*.safetensors") if not any(folder.glob(p))]
    if missing:
        raise DipscopeError(
            f"there is no {' and no '.join(missing)}",
            f"{where}/{prefix}" if prefix else where,
            "Check the subfolder; if a download was cut short, connect and run again.",
        )
    return folder
