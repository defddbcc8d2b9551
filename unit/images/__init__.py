"""Image file ↔ RGB image ↔ float tensor (3, H, W) in [-1, 1]; and files with all that a translation should keep."""

from unit.images.color import to_rgb
from unit.images.decoding import DecodedImage, Frame, decode_bytes, measure_bytes, read_extent, read_image_file
from unit.images.encoding import encode, has_gray_colors
from unit.images.formats import MAX_BYTES, MAX_PIXELS, SUFFIXES, UNSUPPORTED_SUFFIXES, has_image_content
from unit.images.metadata import SOFTWARE, Mark
from unit.images.reading import Header, decode_image, image_errors, read_header, read_image
from unit.images.tensors import (
    center_crop,
    random_crop,
    resize_levels,
    resize_short_side,
    scaled_size,
    to_image,
    to_levels,
    to_tensor,
)
from unit.images.writing import can_mark, format_of, is_marked, write_image, write_image_file

__all__ = [
    "MAX_BYTES",
    "MAX_PIXELS",
    "SOFTWARE",
    "SUFFIXES",
    "UNSUPPORTED_SUFFIXES",
    "DecodedImage",
    "Frame",
    "Header",
    "Mark",
    "can_mark",
    "center_crop",
    "decode_bytes",
    "decode_image",
    "encode",
    "format_of",
    "has_gray_colors",
    "has_image_content",
    "image_errors",
    "is_marked",
    "measure_bytes",
    "random_crop",
    "read_extent",
    "read_header",
    "read_image",
    "read_image_file",
    "resize_levels",
    "resize_short_side",
    "scaled_size",
    "to_image",
    "to_levels",
    "to_rgb",
    "to_tensor",
    "write_image",
    "write_image_file",
]
