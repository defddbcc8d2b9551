import torch

from unit.model.noise import gaussian_codes, patch_places

CPU = torch.device("cpu")


def test_codes_follow_from_their_own_seeds() -> None:
    three, one = gaussian_codes((2, 3, 4), [5, 6, 7], CPU), gaussian_codes((2, 3, 4), [6], CPU)
    assert three.shape == (3, 2, 3, 4)
    assert torch.equal(three[1], one[0])
    assert not torch.equal(three[0], three[1])


def test_places_are_different_ones_and_follow_from_their_own_seeds() -> None:
    layers, alone = patch_places([64, 16, 16], [5, 6], 20, CPU), patch_places([64, 16, 16], [6], 20, CPU)
    assert [tuple(places.shape) for places in layers] == [(2, 20), (2, 16), (2, 16)]
    for places, size in zip(layers, (64, 16, 16), strict=True):
        for row in places.tolist():
            assert len(set(row)) == len(row)
            assert set(row) <= set(range(size))
    assert all(torch.equal(places[1], single[0]) for places, single in zip(layers, alone, strict=True))
    assert layers[0][0].tolist() != layers[0][1].tolist()
    assert layers[1][0].tolist() != layers[2][0].tolist(), "each layer has its own"


def test_every_place_is_as_likely() -> None:
    (places,) = patch_places([10], range(2000), 3, CPU)
    counts = torch.bincount(places.flatten(), minlength=10)
    assert (counts - 600).abs().max() < 100
