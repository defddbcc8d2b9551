"""A drive along a synthetic street, translated both ways, as an animated GIF: inputs left, translations right."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

from unit.domains import Domain
from unit.streets import DAY
from unit.streets.drive import drive
from unit.translation.files.image_files import Settings
from unit.translation.files.jobs import Job
from unit.translation.translator import Translator
from unit.translation.video.reading import Frame, VideoReader
from unit.translation.video.translate import VideoSettings, translate_videos
from unit.translation.video.writing import write_images_as_video

RATE, SCALE, GAP = 8, 2, 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="of the streets, such as runs/streets")
    parser.add_argument("out", type=Path, help="a .gif, .mp4 or .mkv file")
    parser.add_argument("--scene", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--deflicker", action="store_true")
    arguments = parser.parse_args()
    translator = Translator.load(arguments.model)
    size = translator.config.data.load_size
    with TemporaryDirectory() as folder:
        rows = []
        for source, weather in zip(Domain, DAY, strict=True):
            path, translated = Path(folder, f"{weather}.mkv"), Path(folder, f"translated-{weather}.mkv")
            frames = drive(arguments.scene, weather, size, arguments.seconds, RATE)
            write_images_as_video(path, frames, RATE, quality=100)
            settings = VideoSettings(Settings(source=source, quality=100), deflicker=arguments.deflicker)
            (outcome,) = translate_videos(translator, [Job(path, (translated,))], settings)
            print(f"{source.direction}: flicker {outcome.flicker:.2f}", flush=True)
            rows.append((path, translated))
        write_images_as_video(arguments.out, _side_by_side(rows), RATE)


def _side_by_side(rows: list[tuple[Path, Path]]) -> Iterator[Image.Image]:
    for cells in zip(*(_images(path) for row in rows for path in row), strict=True):
        side = cells[0].width * SCALE
        sheet = Image.new("RGB", (2 * side + GAP, len(rows) * (side + GAP) - GAP), "white")
        for k, cell in enumerate(cells):
            place = (k % 2 * (side + GAP), k // 2 * (side + GAP))
            sheet.paste(cell.resize((side, side), Image.Resampling.NEAREST), place)
        yield sheet


def _images(path: Path) -> Iterator[Image.Image]:
    with VideoReader(path) as video:
        for item in video:
            if isinstance(item, Frame):
                yield Image.fromarray(np.asarray(item.pixels))


if __name__ == "__main__":
    main()
