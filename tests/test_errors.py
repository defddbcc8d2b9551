from hypothesis import given
from hypothesis import strategies as st

from unit.errors import ConfigError, DataError, ImageError, ModelError, UserError, escape


@given(st.text())
def test_printable_is_printable_and_leaves_the_printable(text: str) -> None:
    assert escape(text).isprintable()
    if text.isprintable():
        assert escape(text) == text


def test_exit_statuses() -> None:
    statuses = {kind: kind("x").exit_status for kind in (UserError, ConfigError, ModelError, DataError, ImageError)}
    assert statuses == {UserError: 1, ConfigError: 2, ModelError: 2, DataError: 3, ImageError: 3}
