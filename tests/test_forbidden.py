"""Nothing in the project runs text as code, unpickles what it was given, hands a line to a shell, or relies on assert.

`python -O` removes asserts, so in what is not a test they may only narrow a type for mypy.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("unit", "tests", "benchmarks")


def sources() -> list[Path]:
    return sorted([*ROOT.glob("*.py"), *(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))])


def aliases(tree: ast.AST) -> dict[str, str]:
    """Map the imported names to their full names: {"np": "numpy", "load": "torch.load"}."""
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.asname: alias.name for alias in node.names if alias.asname}
        elif isinstance(node, ast.ImportFrom):
            names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return names


def dotted(node: ast.expr, names: dict[str, str]) -> str:
    """ "numpy.load" of ``np.load``; "" of what is no name."""
    if isinstance(node, ast.Name):
        return names.get(node.id, node.id)
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value, names)}.{node.attr}"
    return ""


def keyword(call: ast.Call, name: str) -> object:
    """The literal given under this name; None: not given; "?": no literal, or hidden in ``**options``."""
    for given in call.keywords:
        if given.arg == name:
            return given.value.value if isinstance(given.value, ast.Constant) else "?"
    return "?" if any(given.arg is None for given in call.keywords) else None


NEVER = {
    "__debug__",
    *("eval", "exec", "compile", "builtins.eval", "builtins.exec", "builtins.compile", "__import__"),
    *("os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput"),
    *(f"yaml.{name}" for name in ("load", "load_all", "unsafe_load", "unsafe_load_all", "full_load", "full_load_all")),
    *("yaml.Loader", "yaml.UnsafeLoader", "yaml.FullLoader", "torch.hub.load", "torch.jit.load", "marshal.loads"),
    *("marshal.load", "shelve.open", "dill.load", "dill.loads", "joblib.load", "numpy.lib.npyio.NpzFile"),
}
UNPICKLING = {f"pickle.{name}" for name in ("load", "loads", "Unpickler")}
SHELLS = {f"subprocess.{name}" for name in ("run", "Popen", "call", "check_call", "check_output")}


def faults(source: str, of_a_test: bool) -> Iterator[str]:
    with warnings.catch_warnings(action="ignore"):
        tree = ast.parse(source)
    names = aliases(tree)
    called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield from (f"line {node.lineno}: {what}" for what in wrong_call(node, dotted(node.func, names), of_a_test))
        elif isinstance(node, ast.Assert) and not of_a_test and not narrows(node.test):
            yield f"line {node.lineno}: an assert that checks a value; raise an error"
        elif isinstance(node, (ast.Name, ast.Attribute)) and isinstance(node.ctx, ast.Load) and id(node) not in called:
            name = dotted(node, names)
            if name in NEVER | UNPICKLING | {"torch.load"} and not (of_a_test and name in UNPICKLING):
                yield f"line {node.lineno}: {name} under another name"


def narrows(test: ast.expr) -> bool:
    """True for ``x``, ``x.y`` and ``isinstance(x, y)``."""
    if isinstance(test, ast.Call):
        return dotted(test.func, {}) == "isinstance"
    return isinstance(test, ast.Name | ast.Attribute)


def wrong_call(call: ast.Call, name: str, of_a_test: bool) -> Iterator[str]:
    if name in NEVER or (name in UNPICKLING and not of_a_test):
        yield name
    if name == "torch.load" and keyword(call, "weights_only") is not True:
        yield "torch.load without weights_only=True"
    if name == "numpy.load" and keyword(call, "allow_pickle") not in (None, False):
        yield "numpy.load with allow_pickle"
    if name in SHELLS and keyword(call, "shell") not in (None, False):
        yield f"{name} with a shell"


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_forbidden(path: Path) -> None:
    assert list(faults(path.read_text(encoding="utf-8"), "tests" in path.relative_to(ROOT).parts)) == []


def test_all_of_the_project_is_looked_at() -> None:
    names = {path.relative_to(ROOT).as_posix() for path in sources()}
    assert {"train.py", "translate.py", "unit/__main__.py", "unit/translation/translator.py"} <= names
    assert "tests/test_forbidden.py" in names
    assert any(name.startswith("benchmarks/") for name in names)


BAD = [
    *("assert step == 1", "assert state['step']", "assert is_good(x)", "assert not x", "assert x and y > 0"),
    *("if __debug__:\n    check(x)", "x = 1 if __debug__ else 2"),
    *(
        "eval('1')",
        "exec('x = 1')",
        "compile('1', '', 'eval')",
        "import builtins\nbuiltins.eval('1')",
        "__import__('os')",
    ),
    *("import yaml\nyaml.load(f, yaml.SafeLoader)", "from yaml import unsafe_load\nunsafe_load(f)"),
    *("import yaml as y\ny.full_load(f)", "from yaml import load as read\nread(f)"),
    *("import torch\ntorch.load(f)", "import torch\ntorch.load(f, weights_only=False)"),
    *(
        "import torch as t\nt.load(f, weights_only=safe)",
        "from torch import load\nload(f)",
        "import torch\nr = torch.load",
    ),
    *("import torch\ntorch.load(f, **options)", "import torch\ntorch.load(f, 'cpu', None)"),
    *("import pickle\npickle.loads(b)", "import pickle as p\np.load(f)", "from pickle import Unpickler\nUnpickler(f)"),
    *("import numpy as np\nnp.load(f, allow_pickle=True)", "from numpy import load\nload(f, allow_pickle=x)"),
    *("import subprocess\nsubprocess.run('ls', shell=True)", "from subprocess import Popen\nPopen(x, shell=1)"),
    *("import os\nos.system('ls')", "from os import system as s\ns('ls')", "import os\nos.popen('ls')"),
    *(
        "f = eval",
        "map(eval, texts)",
        "def f():\n    class A:\n        x = [eval(t) for t in y]",
        "import os\nrun = os.system",
    ),
]


@pytest.mark.parametrize("source", BAD)
def test_what_is_forbidden_is_found(source: str) -> None:
    assert list(faults(source, of_a_test=False))


@pytest.mark.parametrize(
    "source",
    [
        *("assert x", "assert self.x", "assert isinstance(x, int)"),
        *("model.eval()", "re.compile('x')", "import re\nre.compile('x')", "self.exec(x)", "'eval(1)'", "# eval(1)"),
        *(
            "import torch\ntorch.load(f, weights_only=True)",
            "import numpy as np\nnp.load(f)",
            "import json\njson.load(f)",
        ),
        *(
            "import yaml\nyaml.safe_load(f)",
            "import subprocess\nsubprocess.run(['ls'], check=True)",
            "torch.compile(m)",
        ),
    ],
)
def test_what_is_not_forbidden_is_left_alone(source: str) -> None:
    assert not list(faults(source, of_a_test=False))


def test_tests_alone_may_unpickle() -> None:
    source = "import pickle\npickle.loads(b)"
    assert not list(faults(source, of_a_test=True))
    assert list(faults(source, of_a_test=False))


Break = Callable[[str], str]


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("unit/training/checkpoint.py", lambda source: source.replace("weights_only=True", "weights_only=False")),
        ("unit/config_file.py", lambda source: source + "\nyaml.load(text, Loader)\n"),
    ],
)
def test_it_would_be_found_in_the_real_files(file: str, change: Break) -> None:
    source = (ROOT / file).read_text(encoding="utf-8")
    assert change(source) != source
    assert list(faults(change(source), of_a_test=False))
