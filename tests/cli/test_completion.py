"""The completion script knows every verb, and completes options and files in a real shell."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from unit.__main__ import main
from unit.cli import VERBS
from unit.config import KEY_TYPES


@pytest.fixture
def script(capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["completion", "bash"]) == 0
    return capsys.readouterr().out


def complete(script: str, folder: Path, *words: str) -> set[str]:
    (folder / "completion").write_text(script)
    code = (
        'source ./completion; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _shtab_unit; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(["bash", "-c", code, "bash", *words], cwd=folder, capture_output=True, text=True)
    return set(done.stdout.split())


@pytest.mark.skipif(not shutil.which("bash"), reason="needs bash")
def test_bash_completes_verbs_options_choices_and_files(script: str, tmp_path: Path) -> None:
    assert complete(script, tmp_path, "unit", "") >= set(VERBS)
    assert complete(script, tmp_path, "unit", "trans") == {"translate"}
    assert complete(script, tmp_path, "unit", "train", "--") >= {f"--{key}" for key in KEY_TYPES}
    assert complete(script, tmp_path, "unit", "translate", "--dir") == {"--direction"}
    assert complete(script, tmp_path, "unit", "translate", "--format", "a") == {"avif"}
    (tmp_path / "photo.png").touch()
    assert complete(script, tmp_path, "unit", "verify", "pho") == {"photo.png"}


@pytest.mark.parametrize("shell", ["zsh", "tcsh"])
def test_other_shells_have_a_script_too(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    assert "interpolate" in capsys.readouterr().out


def test_without_the_package_it_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert main(["completion", "bash"]) == 2
    assert "pip install shtab" in capsys.readouterr().err
