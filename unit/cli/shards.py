"""``shards``: copy a folder of images into WebDataset shards."""

from __future__ import annotations

from collections.abc import Sequence

from unit.cli.arguments import Parser, integer, output_folder, path
from unit.data.shard_writer import write_shards
from unit.errors import escape


def run(argv: Sequence[str]) -> int:
    """Write the shards; return the exit status."""
    arguments = make_parser().parse_args(argv)
    pattern = write_shards(arguments.folder, arguments.out, arguments.per_shard, arguments.megabytes, arguments.seed)
    print(escape(pattern))
    return 0


def make_parser() -> Parser:
    """Return the verb's parser."""
    parser = Parser(
        "shards",
        description="Copy the images of a folder, byte for byte and in random order, into tar files that training "
        "reads instead of the folder: OUT/NAME-000000.tar and so on, where NAME is the folder's. Prints the value "
        "for data.a or data.b.",
        epilog="example: %(prog)s photos/sunny shards",
    )
    parser.add_argument("folder", type=path, metavar="FOLDER", help="the images, at any depth")
    parser.add_argument("out", type=output_folder, metavar="OUT", help="folder to write to")
    megabytes_help = "maximum size of a shard (default: %(default)s)"
    parser.add_argument("--megabytes", type=integer(1, 10**6), default=250, metavar="N", help=megabytes_help)
    per_shard_help = "maximum number of images in a shard (default: only megabytes count)"
    parser.add_argument("--per_shard", type=integer(1), default=10**9, metavar="N", help=per_shard_help)
    parser.add_argument("--seed", type=integer(0), default=0, help="seed of the random order (default: %(default)s)")
    return parser
