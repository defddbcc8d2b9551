"""Translating one image that comes as bytes, as from standard input, into bytes."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from unit.errors import ConfigError, UserError, escape
from unit.images import decode_bytes, encode, has_gray_colors
from unit.translation.files.image_files import NOT_FINITE, SMALLER, Settings, marker_of
from unit.translation.frames import SizeWarning, translate_image
from unit.translation.translator import Translator


def translate_bytes(
    translator: Translator, content: bytes, name: str, settings: Settings, image_format: str | None
) -> tuple[bytes, list[str]]:
    """Translate an image file's content into that of another, as `translate_images` does with files.

    Args:
        content: of a file in any format that is read.
        name: what messages call it.
        settings: with at most one sample.
        image_format: Pillow's name of the output's format; None: the input's.

    Returns:
        The output, and the names of what it doesn't keep.

    Raises:
        UserError: one line that begins with the name.
        ConfigError: the format can't be written.
    """
    image = decode_bytes(content, name, translator.config.data.max_pixels)
    image_format = image_format or image.format
    if image_format not in Image.SAVE:
        raise ConfigError(f"{escape(name)}: can't write {image_format}; give another --format")
    seed = None if settings.samples is None else settings.seed
    SizeWarning(translator, settings.source, settings.size).check(name, image.size)
    try:
        translated = translate_image(
            translator,
            image,
            settings.source,
            size=settings.size,
            seed=seed,
            strength=settings.strength,
            batch_size=settings.batch_size,
        )
    except UserError as error:
        raise type(error)(f"{escape(name)}: {error}; {SMALLER}") from error
    except ValueError as error:
        raise UserError(f"{escape(name)}: {NOT_FINITE}") from error
    gray = settings.keep_gray and has_gray_colors(image)
    mark = marker_of(translator, settings).mark(content, Path(name).name)
    output, lost = encode(translated, image_format, settings.quality, gray=gray, mark=mark)
    return output, [*image.lost, *lost]
