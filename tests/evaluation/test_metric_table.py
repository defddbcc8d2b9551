import pytest

from unit.domains import Domain, PerDomain
from unit.evaluation.metric_table import GROUPS, NAMES, PAIRED, Metrics, table

SUNNY_RAINY = PerDomain("sunny", "rainy")


def metrics(**changes: float | None) -> Metrics:
    """A different number in each cell."""
    numbers = iter(range(1, 1000))
    return {
        i.direction: {group: {name: next(numbers) + 0.25 for name in NAMES} | changes for group in GROUPS}
        for i in Domain
    }


def test_the_table_has_every_metric_in_its_cell() -> None:
    given = metrics(images=1200, reference_images=34)
    lines = table(given, SUNNY_RAINY).splitlines()
    blocks = {heading: k for k, heading in enumerate(lines) if " to " in heading and " vs. " in heading}
    assert list(blocks) == [f"{way}, 1,200 images vs. 34 real" for way in ("sunny to rainy", "rainy to sunny")]
    for groups, start in zip(given.values(), blocks.values(), strict=True):
        assert lines[start + 1].split() == ["better", "translated", "identity", "real"]
        cells = [line[45:].replace(" to ", "-").split() for line in lines[start + 2 : start + 14]]
        numbers = [[float(cell) for cell in row] for k, row in enumerate(cells) if k != 1]
        shown = [name for name in NAMES if not name.startswith(("kid_", "images", "reference"))]
        for name, row in zip(shown, numbers, strict=True):
            factor = 100 if name == "pixel_accuracy" else 1
            assert row == pytest.approx([factor * (group[name] or 0) for group in groups.values()], abs=0.06)
        assert cells[1] == [f"{group['kid_low']:.0f}-{group['kid_high']:.0f}" for group in groups.values()]
    assert max(map(len, lines)) <= 90
    assert not any(line.endswith(" ") for line in lines)


def test_the_table_names_the_features() -> None:
    assert "KID x 1000, Inception" in table(metrics(), SUNNY_RAINY, "Inception")


@pytest.mark.parametrize(
    ("gone", "words"),
    [(PAIRED, ("PSNR", "SSIM", "pixels")), (("kid", "kid_low", "kid_high", "fid"), ("KID", "FID", "95 %"))],
)
def test_metrics_without_values_have_no_rows(gone: tuple[str, ...], words: tuple[str, ...]) -> None:
    def starts(text: str, word: str) -> int:
        return sum(line.strip().startswith(word) for line in text.splitlines())

    complete, without = table(metrics(), SUNNY_RAINY), table(metrics(**dict.fromkeys(gone)), SUNNY_RAINY)
    for word in words:
        assert starts(complete, word) >= 2
        assert starts(without, word) == 0


def test_a_value_without_meaning_leaves_its_cell_empty() -> None:
    values = metrics()
    values["a2b"]["identity"]["cycle_psnr"] = None
    values["a2b"]["real"]["cycle_psnr"] = None
    (row, _) = [line for line in table(values, SUNNY_RAINY).splitlines() if "cycle PSNR" in line]
    assert len(row[43:].split()) == 1
