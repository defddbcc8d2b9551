"""Checkpoint files: checksummed and written atomically, so that one is either complete or absent.

A checkpoint is a file of `torch.save` with its SHA-256 in the zip archive's comment: torch.load reads it as it is, and
`load` notices any flipped bit, which torch.load does not.
"""

from __future__ import annotations

import hashlib
import io
import logging
import re
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch.utils._pytree import tree_map_only

from unit.errors import UserError, escape
from unit.files import atomic_write, wrap_os_errors

log = logging.getLogger(__name__)

_MARK = b"sha256:"
_COMMENT = len(_MARK) + 2 * hashlib.sha256().digest_size
_BLOCK = 2**24


class BadCheckpointError(UserError):
    """A checkpoint that is damaged, or not one of this program."""


def path_of(folder: Path, step: int) -> Path:
    """The path of a step's checkpoint."""
    return folder / f"step-{step:08d}.pt"


def available(folder: Path) -> list[tuple[int, Path]]:
    """Return (step, path) of each checkpoint, newest first, good or damaged."""
    matches = ((re.fullmatch(r"step-(\d{8,})\.pt", path.name), path) for path in folder.glob("step-*.pt"))
    return sorted(((int(match[1]), path) for match, path in matches if match), reverse=True)


def save(state: dict[str, Any], path: Path) -> None:
    """Write tensors, numbers, strings, lists and dicts to `path`.

    Raises:
        UserError: it can't be written; an older file stays untouched.
    """
    buffer = io.BytesIO()
    torch.save(state, buffer)
    # A zip ends with the length of its comment and the comment; torch writes none.
    buffer.seek(-2, io.SEEK_END)
    buffer.write(_COMMENT.to_bytes(2, "little"))
    buffer.write(_MARK + hashlib.sha256(buffer.getbuffer()).hexdigest().encode())
    atomic_write(path, buffer.getbuffer())


def load(path: Path) -> dict[str, Any]:
    """Return the state that `save` wrote, on the CPU.

    Raises:
        UserError: there is no permission to read it.
        BadCheckpointError: missing, truncated, changed, or not a checkpoint; code in it is never run.
    """
    try:
        if path.exists() and not path.is_file():  # a pipe would be waited for
            raise BadCheckpointError(f"{escape(path)}: not a regular file")
        with path.open("rb") as file:
            if not _checksum_matches(file):
                raise BadCheckpointError(f"{escape(path)}: damaged (its checksum does not match its content)")
            return torch.load(file, map_location="cpu", weights_only=True)  # type: ignore[no-any-return]
    except BadCheckpointError:
        raise
    except PermissionError as error:  # the content may be good
        raise UserError(f"{escape(path)}: no permission to read it; grant it") from error
    except OSError as error:
        raise BadCheckpointError(f"{escape(path)}: can't be read ({error.strerror})") from error
    except Exception as error:  # a foreign file may make torch raise anything
        raise BadCheckpointError(f"{escape(path)}: not a checkpoint of this program") from error


def load_newest(folder: Path) -> dict[str, Any] | None:
    """Return the state of the newest good checkpoint, on the CPU; None: there is none at all.

    Raises:
        UserError: there is no permission to read one.
        BadCheckpointError: none is good; the message is about the newest.
    """
    first: BadCheckpointError | None = None
    for _, path in available(folder):
        try:
            return load(path)
        except BadCheckpointError as error:
            log.warning("%s; trying the one before", error)
            first = first or error
    if first:
        raise first
    return None


def _checksum_matches(file: BinaryIO) -> bool:
    """Compare block by block, since a file may be larger than the memory; leave the file at its start."""
    remaining = file.seek(0, io.SEEK_END) - _COMMENT
    file.seek(max(0, remaining))
    comment = file.read()
    if not comment.startswith(_MARK):  # a sparse file of terabytes would take hours
        return False
    file.seek(0)
    state = hashlib.sha256()
    while block := file.read(min(remaining, _BLOCK)):
        state.update(block)
        remaining -= len(block)
    file.seek(0)
    return comment == _MARK + state.hexdigest().encode()


def remove_old(folder: Path, newest: int, keep_last: int, keep_every: int | None) -> None:
    """Delete all checkpoints but the last `keep_last` up to step `newest` and those of every `keep_every`-th step.

    Later ones, which were passed over when the run was resumed, must not take the place of those just written.
    """
    for step, path in [entry for entry in available(folder) if entry[0] <= newest][keep_last:]:
        if not (keep_every and step and step % keep_every == 0):
            with wrap_os_errors(path):
                path.unlink(missing_ok=True)


def copy_to_cpu(state: dict[str, Any]) -> dict[str, Any]:
    """Copy nested dicts and lists, and their tensors to the CPU."""
    copied: dict[str, Any] = tree_map_only(torch.Tensor, lambda t: t.detach().to("cpu", copy=True), state)
    return copied
