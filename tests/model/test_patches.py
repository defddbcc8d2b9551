import pytest
import torch

from unit.config import ModelConfig
from unit.domains import Domain, PerDomain
from unit.model.networks import build_autoencoders
from unit.model.noise import patch_places
from unit.model.patches import PatchProjector, build_patch_projector

SMALL = ModelConfig(channels=4, residual_blocks=2)


def test_it_takes_what_the_encoders_give() -> None:
    networks = build_autoencoders(SMALL)
    projector = build_patch_projector(networks)
    features = networks.encode_by_layer(PerDomain.of(lambda _: torch.rand(2, 3, 16, 24)))
    places = patch_places([16 * 24 // s**2 for s in networks.feature_strides], [1, 2], 50, torch.device("cpu"))
    found = projector(features, PerDomain(places, places))
    for i in Domain:
        assert [tuple(x.shape) for x in found[i]] == [(2, 50, 256)] * 2 + [(2, 24, 256)] * 2
        for x in found[i]:
            torch.testing.assert_close(x.norm(dim=2), torch.ones(x.shape[:2]))


def test_each_place_is_taken_where_it_lies_and_goes_through_its_own_head() -> None:
    projector = PatchProjector([3, 5])
    features = PerDomain.of(lambda _: [torch.randn(2, 3, 4, 6), torch.randn(2, 5, 2, 3)])
    places = PerDomain.of(lambda _: patch_places([24, 6], [1, 2], 4, torch.device("cpu")))
    found = projector(features, places)
    for i in Domain:
        for layer, (head, x, at) in enumerate(zip(projector.heads[i], features[i], places[i], strict=True)):
            for item in range(2):
                for k, place in enumerate(at[item].tolist()):
                    row, column = divmod(place, x.shape[3])
                    expected = head(x[item, :, row, column])
                    torch.testing.assert_close(found[i][layer][item, k], expected / expected.norm())


def test_both_domains_and_all_layers_have_heads_of_their_own() -> None:
    projector = build_patch_projector(build_autoencoders(SMALL))
    assert len(projector.heads["a"]) == 4
    first = [head[0].weight for heads in projector.heads.values() for head in heads]
    assert len({weight.data_ptr() for weight in first}) == 2 * 4
    assert [head[0].in_features for head in projector.heads["b"]] == [4, 8, 16, 16]


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_it_is_in_fp32_under_autocast_too(precision: torch.dtype) -> None:
    projector = PatchProjector([3])
    x = PerDomain.of(lambda _: [torch.randn(1, 3, 4, 4, dtype=precision).contiguous(memory_format=torch.channels_last)])
    places = PerDomain.of(lambda _: [torch.arange(16)[None]])
    with torch.autocast("cpu", torch.bfloat16):
        found = projector(x, places).a[0]
    assert found.dtype == torch.float32
    assert torch.equal(found, projector(x.map(lambda layers: [layers[0].float()]), places).a[0])
