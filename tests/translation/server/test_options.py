import pytest

from unit.errors import ConfigError
from unit.translation.server.options import MAX_SAMPLES, Options, parse_options


def test_defaults_and_values() -> None:
    assert parse_options([("direction", "a2b")]) == Options(direction="a2b")
    query = {"direction": "x2y", "strength": "0.25", "samples": "3", "seed": "7", "model": "m", "format": "webp"}
    expected = Options(direction="x2y", strength=0.25, samples=3, seed=7, model="m", format="webp")
    assert parse_options(list(query.items())) == expected


def test_an_empty_value_is_the_default() -> None:
    empty = [(name, "") for name in Options.model_fields if name != "direction"]
    assert parse_options([("direction", "a2b"), *empty]) == Options(direction="a2b")


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ([], "direction: missing"),
        ([("direction", "")], "direction: missing"),
        ([("direction", "a2b"), ("strenght", "1")], "strenght: no such parameter"),
        ([("direction", "a2b"), ("direction", "b2a")], "direction: given twice"),
        ([("direction", "a2b"), ("url", "http://example.org/x.png")], "url: no such parameter"),
        ([("direction", "a2b"), ("path", "/etc/passwd")], "path: no such parameter"),
        *(([("direction", "a2b"), ("strength", value)], "strength=") for value in ("1.01", "-1", "nan", "inf", "much")),
        *(
            ([("direction", "a2b"), ("samples", value)], "samples=")
            for value in ("0", "1.5", "x", str(MAX_SAMPLES + 1))
        ),
        *(([("direction", "a2b"), ("seed", value)], "seed=") for value in ("-1", str(2**32), "1e3")),
        ([("direction", "a2b"), ("format", "exe")], "format=exe"),
        ([("direction", "a2b"), ("seed", "\n\x1b[31m")], "seed=\\n\\x1b"),
    ],
)
def test_mistakes_are_named_in_one_short_printable_line(query: list[tuple[str, str]], said: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse_options(query)
    assert str(error.value).startswith(said)
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 300
