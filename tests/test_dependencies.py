"""requirements.txt with all that it brings: its licences in docs/licences.md, its versions in constraints.txt."""

from __future__ import annotations

import re
from fnmatch import fnmatch
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]


def requirements(file: str) -> list[Requirement]:
    lines = (ROOT / file).read_text().splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith(("#", "-r"))]


def installed(pending: list[Requirement]) -> set[str]:
    """Return the names of installed packages that these need, directly or not."""
    found: set[str] = set()
    while pending:
        requirement = pending.pop()
        name = canonicalize_name(requirement.name)
        if name in found or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue
        try:
            pending += map(Requirement, requires(name) or ())
        except PackageNotFoundError:
            continue
        found.add(name)
    return found


def test_the_licence_of_every_dependency_is_listed() -> None:
    table = (ROOT / "docs/licences.md").read_text()
    listed = [name for row in re.findall(r"^\| (.+?) \|", table, re.MULTILINE) for name in row.split(", ")]
    names = installed(requirements("requirements.txt"))
    assert len(names) > 30
    assert {name for name in names if not any(fnmatch(name, pattern) for pattern in listed)} == set()


def test_the_constraints_fix_every_dependency_but_torch_and_what_it_brings() -> None:
    fixed = {canonicalize_name(constraint.name): constraint for constraint in requirements("constraints.txt")}
    asked = requirements("requirements.txt") + requirements("requirements-dev.txt")
    free = {"torch", "torchvision", "triton", "setuptools"}  # their builds, or what they need, differ by machine
    names = {name for name in installed(list(asked)) if not name.startswith(("nvidia-", "cuda-"))}
    assert names - free <= fixed.keys()
    assert not free & fixed.keys()
    for requirement in asked:
        if (constraint := fixed.get(canonicalize_name(requirement.name))) is not None:
            (version,) = constraint.specifier
            assert version.operator == "=="
            assert requirement.specifier.contains(version.version), requirement
