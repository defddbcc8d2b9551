"""Tensor names of the version before, in which each domain's networks listed the shared layers too."""

import re

_OLD = re.compile(r"(encoder|generator)s\.([ab])\.(private|shared)\.")


def current_name(name: str) -> str:
    """Translate a tensor's old name, e.g. ``encoders.a.private.0.0.weight`` → ``encoder.private.a.0.0.weight``."""
    match = _OLD.match(name)
    if not match:
        return name
    network, domain, part = match.groups()
    return f"{network}.{part}.{domain + '.' if part == 'private' else ''}{name[match.end() :]}"
