"""The query parameters of a translation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from unit.errors import ConfigError, escape

MAX_SAMPLES = 16


class Options(BaseModel):
    """How to translate the image of a request."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    direction: str = Field(description='"a2b", "b2a", or by the names of the domains, such as "sunny2rainy"')
    strength: float = Field(
        1.0,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="0: the image itself, as the model reconstructs it; 1: its translation",
    )
    samples: int | None = Field(
        None,
        ge=1,
        le=MAX_SAMPLES,
        description="number of translations, with noise added to the code; several come as a ZIP archive. "
        "Without it there is one translation, without noise",
    )
    seed: int = Field(0, ge=0, lt=2**32, description="seed of the first sample's noise; the next ones count up")
    detail: Literal["auto", "native", "guided"] = Field(
        "auto",
        description="of images well over the size that the model was trained at. native: translated at their own size; "
        "guided: at the trained size, and the change carried to theirs; auto: what was better for the model",
    )
    model: str | None = Field(None, description="a name of /models; the first one by default")
    format: Literal["same", "png", "jpg", "webp", "tiff", "avif"] = Field(
        "same", description="format of the result; same: the image's own, PNG where that can't be written"
    )


def parse_options(query: Sequence[tuple[str, str]]) -> Options:
    """Return the options that a query asks for; an empty value is the default.

    Raises:
        ConfigError: an unknown, repeated or missing parameter, or a value out of range.
    """
    values = {name: value for name, value in query if value}
    names = [name for name, _ in query]
    if repeated := next((name for name in names if names.count(name) > 1), None):
        raise ConfigError(f"{escape(repeated)[:50]}: given twice; give it once")
    if unknown := next((name for name in names if name not in Options.model_fields), None):
        raise ConfigError(f"{escape(unknown)[:50]}: no such parameter; one of {', '.join(Options.model_fields)}")
    try:
        return Options.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        name, given = str(first["loc"][0]), escape(str(first["input"]))[:50]
        if first["type"] == "missing":
            raise ConfigError(f"{name}: missing; {Options.model_fields[name].description}") from error
        raise ConfigError(f"{name}={given}: {first['msg'].lower()}") from error
