from hypothesis import given
from hypothesis import strategies as st

from unit.errors import ConfigError, DataError, ImageError, ModelError, UserError, escape, format_bytes


@given(st.text())
def test_printable_is_printable_and_leaves_the_printable(text: str) -> None:
    assert escape(text).isprintable()
    if text.isprintable():
        assert escape(text) == text


def test_exit_statuses() -> None:
    statuses = {kind: kind("x").exit_status for kind in (UserError, ConfigError, ModelError, DataError, ImageError)}
    assert statuses == {UserError: 1, ConfigError: 2, ModelError: 2, DataError: 3, ImageError: 3}


def test_sizes_have_units() -> None:
    sizes = {0: "0 bytes", 999: "999 bytes", 1500: "1.5 KB", 69_154_324_480: "69 GB", 2_500_000: "2.5 MB"}
    assert {number: format_bytes(number) for number in sizes} == sizes
