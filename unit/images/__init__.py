"""Image file ↔ RGB image ↔ float tensor (3, H, W) in [-1, 1]."""

from unit.images.reading import (
    MAX_BYTES,
    MAX_PIXELS,
    SUFFIXES,
    UNSUPPORTED_SUFFIXES,
    Header,
    decode_image,
    has_image_content,
    image_errors,
    read_header,
    read_image,
    to_rgb,
)
from unit.images.tensors import center_crop, random_crop, resize_short_side, to_image, to_tensor
from unit.images.writing import SOFTWARE, Mark, can_mark, is_marked, write_image

__all__ = [
    "MAX_BYTES",
    "MAX_PIXELS",
    "SOFTWARE",
    "SUFFIXES",
    "UNSUPPORTED_SUFFIXES",
    "Header",
    "Mark",
    "can_mark",
    "center_crop",
    "decode_image",
    "has_image_content",
    "image_errors",
    "is_marked",
    "random_crop",
    "read_header",
    "read_image",
    "resize_short_side",
    "to_image",
    "to_rgb",
    "to_tensor",
    "write_image",
]
