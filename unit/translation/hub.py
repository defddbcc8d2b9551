"""Models from the Hugging Face Hub. It needs the extra ``hub``."""

from __future__ import annotations

from pathlib import Path

from unit.errors import ConfigError, ModelError, escape
from unit.translation.model_file import MODEL_FILE


def download_model(repository: str, revision: str | None = None) -> Path:
    """Return the path of a repository's model file in the local cache, downloading it if it is not there or outdated.

    Nothing else of the repository is downloaded. Without a connection, the file in the cache is used. The token of a
    private repository is the one of ``hf auth login`` or of the environment variable HF_TOKEN.

    Args:
        repository: "user/model".
        revision: a branch, tag or commit; None: the main branch.

    Raises:
        ConfigError: the extra is not installed.
        ModelError: there is no such repository, revision or file, no permission, or neither connection nor cache.
    """
    try:
        from huggingface_hub import errors, hf_hub_download
    except ImportError as error:
        raise ConfigError(f"the package {error.name} is not installed; pip install huggingface_hub") from None
    try:
        return Path(hf_hub_download(repository, MODEL_FILE, revision=revision))
    except errors.GatedRepoError:
        reason = "its owner must grant you access first; ask on its page, and log in with hf auth login"
    except errors.RepositoryNotFoundError:
        reason = (
            "no such repository on the Hugging Face Hub, or a private one; set HF_TOKEN (Translator.load opens files)"
        )
    except errors.RevisionNotFoundError:
        reason = f"no revision {revision}; give a branch, tag or commit"
    except errors.LocalEntryNotFoundError:
        reason = "not in the cache, and the Hugging Face Hub can't be reached; check the connection"
    except errors.EntryNotFoundError:
        reason = f"no {MODEL_FILE} in the repository; give one with a model of this program"
    except errors.HFValidationError:
        reason = 'not the name of a repository, "user/model"; Translator.load opens files'
    except Exception as error:  # of the network, for which its clients have many types, or the disk
        reason = f"can't be downloaded ({' '.join(str(error).split())[:200]})"
    raise ModelError(escape(f"{repository}: {reason}"))
