import pytest

from unit.domains import Domain, PerDomain
from unit.evaluation.metric_table import GROUPS, NAMES, PAIRED, Metrics, table, verdict

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
        cells = [line[45:].replace(" to ", "-").split() for line in lines[start + 2 : start + 18]]
        numbers = [[float(cell) for cell in row] for k, row in enumerate(cells) if k not in (1, 3)]
        shown = [name for name in NAMES if not name.endswith(("_low", "_high", "images"))]
        for name, row in zip(shown, numbers, strict=True):
            factor = 100 if name == "pixel_accuracy" else 1
            assert row == pytest.approx([factor * (group[name] or 0) for group in groups.values()], abs=0.06)
        for row, name in ((1, "kid"), (3, "kid_vgg")):
            ends = [(group[f"{name}_low"] or 0, group[f"{name}_high"] or 0) for group in groups.values()]
            assert cells[row] == [f"{low:.0f}-{high:.0f}" for low, high in ends]
    assert max(map(len, lines)) <= 90
    assert not any(line.endswith(" ") for line in lines)


def test_the_table_names_the_features() -> None:
    assert "KID x 1000, Inception" in table(metrics(), SUNNY_RAINY, "Inception")


@pytest.mark.parametrize(
    ("gone", "words"),
    [
        (PAIRED, ("PSNR", "SSIM", "ST-LPIPS", "pixels")),
        (("kid", "kid_low", "kid_high", "fid"), ("KID x", "FID")),
        (("kid_vgg", "kid_vgg_low", "kid_vgg_high"), ("KID-VGG",)),
        (tuple(name for name in NAMES if name.startswith("kid")), ("KID", "95 %")),
    ],
)
def test_metrics_without_values_have_no_rows(gone: tuple[str, ...], words: tuple[str, ...]) -> None:
    def starts(text: str, word: str) -> int:
        return sum(line.strip().startswith(word) for line in text.splitlines())

    complete, without = table(metrics(), SUNNY_RAINY), table(metrics(**dict.fromkeys(gone)), SUNNY_RAINY)
    for word in words:
        assert starts(complete, word) >= 2
        assert starts(without, word) == 0


@pytest.mark.parametrize(
    ("translated", "identity", "swapped", "sentence"),
    [
        ({"kid": 122.7}, {"kid": 258.7}, False, "better than the input by 136.0: KID 122.7, the input's 258.7"),
        ({"kid": 284.5}, {"kid": 258.7}, False, "worse than doing nothing: KID 284.5, the input's 258.7; try "),
        ({"kid": 284.5, "psnr": 17.6}, {"kid": 258.7, "psnr": 14.7}, False, "although PSNR is better by 2.9 dB; try "),
        ({"kid": 261.0}, {"kid": 258.7}, False, "no clear difference from doing nothing: KID 261.0"),
        ({"kid": 284.5}, {"kid": 258.7}, True, "are the folders swapped?"),
        ({"psnr": 17.6}, {"psnr": 14.7}, False, "better than the input by 2.9 dB: PSNR 17.6 dB, the input's 14.7 dB"),
        ({"psnr": 12.0}, {"psnr": 14.7}, False, "worse than doing nothing: PSNR 12.0 dB, the input's 14.7 dB; try "),
        ({}, {}, False, "can't be judged; KID needs its packages and two images of each domain"),
    ],
)
def test_a_sentence_says_whether_to_translate(
    translated: dict[str, float], identity: dict[str, float], swapped: bool, sentence: str
) -> None:
    groups: dict[str, dict[str, float | None]] = {
        name: dict.fromkeys(NAMES)
        | values
        | ({"kid_low": values["kid"] - 5, "kid_high": values["kid"] + 5} if "kid" in values else {})
        for name, values in (("translated", translated), ("identity", identity), ("real", {}))
    }
    assert sentence in verdict(groups, swapped)
    lines = table({i.direction: groups for i in Domain}, SUNNY_RAINY, swapped=swapped)
    for way in ("sunny to rainy", "rainy to sunny"):
        assert " ".join(lines.split()).count(f"{way}: {verdict(groups, swapped)}") == 1


def test_a_value_without_meaning_leaves_its_cell_empty() -> None:
    values = metrics()
    values["a2b"]["identity"]["cycle_psnr"] = None
    values["a2b"]["real"]["cycle_psnr"] = None
    (row, _) = [line for line in table(values, SUNNY_RAINY).splitlines() if "cycle PSNR" in line]
    assert len(row[43:].split()) == 1
