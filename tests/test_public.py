import subprocess
import sys

import pytest

import unit


def test_the_public_names_are_there() -> None:
    from unit.config import Config
    from unit.training.loop import train
    from unit.translation.translator import Translator

    assert (unit.Config, unit.train, unit.Translator) == (Config, train, Translator)
    with pytest.raises(AttributeError, match="nothing_like_it"):
        _ = unit.nothing_like_it


def test_the_bottom_rooms_do_without_torch() -> None:
    code = "import sys, unit.config_file, unit.seeds; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
