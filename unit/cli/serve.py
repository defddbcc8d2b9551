"""``serve``: translate images over HTTP, with a page for browsers."""

from __future__ import annotations

import argparse
import logging
import os
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path

from unit.cli.arguments import Parser, add_device_arguments, integer
from unit.domains import Domain
from unit.errors import ConfigError, escape
from unit.translation.model_file import MODEL_FILE, read_header

log = logging.getLogger(__name__)
_PATIENCE = 10
"""Seconds that requests in progress have to finish after Ctrl-C or SIGTERM."""


def run(argv: Sequence[str]) -> int:
    """Serve until Ctrl-C or SIGTERM, and return the exit status."""
    arguments = make_parser().parse_args(argv)
    try:
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ModuleNotFoundError as error:
        raise ConfigError(f"the package {error.name} is not installed; pip install starlette uvicorn") from error
    paths = _named([Path(model) for model in arguments.models])
    for path in paths.values():
        read_header(path)
    with _listen(arguments.host, arguments.port) as listener:
        _serve(arguments, paths, listener)
    return 0


def _serve(arguments: argparse.Namespace, paths: Mapping[str, Path], listener: socket.socket) -> None:
    # Imported here because torch takes seconds, which --help and mistakes on the command line need not wait for.
    import torch
    import uvicorn

    from unit.translation.server.admission import Limits
    from unit.translation.server.app import running_app
    from unit.translation.server.batching import is_translating
    from unit.translation.translator import Translator

    models = {name: Translator.load(path, arguments.device, arguments.precision) for name, path in paths.items()}
    for translator in models.values():  # the first translation takes seconds, which should not be a visitor's
        size = translator.config.data.load_size
        translator.translate(torch.zeros(1, 3, size, size), Domain.A)
    limits = Limits(arguments.max_mb * 1_000_000, arguments.max_megapixels * 1_000_000, arguments.max_queue)
    hosts = ["localhost", arguments.host, *arguments.allow_host]
    try:
        with running_app(models, limits, arguments.batch_size, hosts) as app:
            config = uvicorn.Config(
                app,
                lifespan="off",
                log_config=None,
                log_level="warning",
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=_PATIENCE,
            )
            print(_url(listener), flush=True)
            log.info("translating with %s; Ctrl-C stops", ", ".join(map(escape, models)))
            uvicorn.Server(config).run([listener])
    except KeyboardInterrupt:
        if is_translating():  # Python would clean up under a thread that computes, and crash
            os._exit(130)
        raise


def _named(paths: Sequence[Path]) -> dict[str, Path]:
    """Name models by their run directories or files, numbered where names are equal."""
    named: dict[str, Path] = {}
    for path in paths:
        absolute = path.resolve()
        stem = absolute.parent.name if absolute.name == MODEL_FILE else absolute.name.removesuffix(".safetensors")
        stem = escape(stem) or "model"
        name, number = stem, 2
        while name in named:
            name, number = f"{stem}-{number}", number + 1
        named[name] = path
    return named


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(address[:2], family=family, backlog=512)
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise ConfigError(f"--host {escape(host)} --port {port}: {reason}; give another") from error


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def make_parser() -> Parser:
    """Return the verb's parser."""
    parser = Parser(
        "serve",
        description="Serve models on this machine: a page to translate photos in a browser, and POST "
        "/translate?direction=a2b, which takes the bytes of an image file and gives those of its translation. "
        "/openapi.json describes it for programs. Prints the address. Ctrl-C stops. Needs pip install starlette "
        "uvicorn.",
        epilog="example: %(prog)s runs/sunny-rainy",
    )
    parser.add_argument("models", nargs="+", metavar="MODEL", help="run directories or .safetensors files")
    host_help = "address to listen on; 0.0.0.0 lets other machines, such as a phone, use it (default: %(default)s)"
    parser.add_argument("--host", default="127.0.0.1", help=host_help)
    port_help = "0: any free one (default: %(default)s)"
    parser.add_argument("--port", type=integer(0, 65535), default=8000, metavar="N", help=port_help)
    name_help = "a further name that requests may use for this machine, e.g. that of a proxy; repeatable"
    parser.add_argument("--allow_host", action="append", default=[], metavar="NAME", help=name_help)
    batch_help = "images of equal size to translate together (default: %(default)s)"
    parser.add_argument("--batch_size", type=integer(1), default=8, metavar="N", help=batch_help)
    bytes_help = "size of the largest image file, in millions of bytes (default: %(default)s)"
    parser.add_argument("--max_mb", type=integer(1, 2000), default=50, metavar="N", help=bytes_help)
    pixels_help = "size of the largest image, and of all in memory at a time (default: %(default)s)"
    parser.add_argument("--max_megapixels", type=integer(1, 200), default=50, metavar="N", help=pixels_help)
    queue_help = "requests in progress and waiting; further ones are refused (default: %(default)s)"
    parser.add_argument("--max_queue", type=integer(1, 10_000), default=64, metavar="N", help=queue_help)
    add_device_arguments(parser)
    return parser
