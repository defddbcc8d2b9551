"""PatchNCE: the loss by hand, where patches are taken, what is compared with what, and where gradients go."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.model.affine import NOISE, SMALL, Affine, X, discriminators, make_images, seeds, value
from unit.domains import Domain, PerDomain
from unit.model.extras import patch_nce as module
from unit.model.extras.patch_nce import PATCHES, Extra, patch_nce, sample_positions
from unit.model.networks import Autoencoders, Encoder, Generator, build_autoencoders
from unit.model.noise import draw_noise
from unit.model.objective import Microbatch, forward_pass, total

CPU = torch.device("cpu")


# -- the loss ----------------------------------------------------------------------------------------------------------


def test_patch_nce_by_hand() -> None:
    query = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    key = torch.tensor([[[1.0, 0.0], [1.0, 0.0]]])
    # The first query is as close to the other key as to its own, the second as far from both.
    assert patch_nce([query], [key], 0.5).item() == pytest.approx(math.log(2))
    # Own key at 1, the other at 0, over 0.5: log(1 + e⁻²).
    assert patch_nce([query], [query], 0.5).item() == pytest.approx(math.log(1 + math.exp(-2)))
    assert patch_nce([query, query], [key, query], 0.5).item() == pytest.approx(
        (math.log(2) + math.log(1 + math.exp(-2))) / 2
    )
    swapped = query.flip(1)
    assert patch_nce([query], [swapped], 0.5).item() == pytest.approx(math.log(1 + math.exp(2)))


def test_patch_nce_is_the_cross_entropy_within_each_image() -> None:
    query, key = (functional.normalize(torch.randn(3, 5, 8, dtype=torch.float64), dim=2) for _ in range(2))
    expected = [functional.cross_entropy(query[k] @ key[k].T / 0.07, torch.arange(5)) for k in range(3)]
    assert patch_nce([query], [key]).item() == pytest.approx(torch.stack(expected).mean().item())


def test_no_gradient_reaches_the_keys() -> None:
    query, key = (functional.normalize(torch.randn(3, 5, 8), dim=2).requires_grad_() for _ in range(2))
    gradients = torch.autograd.grad(patch_nce([query], [key]), (query, key), allow_unused=True)
    assert gradients[0].norm() > 0
    assert gradients[1] is None


def test_the_mean_of_two_halves_is_the_batchs_loss() -> None:
    x, y = (torch.randn(4, 6, 8, dtype=torch.float64) / 10 for _ in range(2))
    halves = [patch_nce([a], [b]).item() for a, b in zip(x.chunk(2), y.chunk(2), strict=True)]
    assert sum(halves) / 2 == pytest.approx(patch_nce([x], [y]).item())


def test_the_loss_is_computed_in_fp32_under_autocast() -> None:
    query = functional.normalize(torch.randn(1, 16, 32), dim=2)
    half = torch.full((1, 64, 64), 1 / 8 + 2**-10).bfloat16()
    expected = patch_nce([query], [query])
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(patch_nce([query], [query]), expected)
        assert patch_nce([half], [half]).dtype == torch.float32


# -- positions ---------------------------------------------------------------------------------------------------------


def test_positions_are_distinct_and_each_images_follow_from_its_own_seed() -> None:
    layers, alone = sample_positions([64, 16, 16], [5, 6], 20, CPU), sample_positions([64, 16, 16], [6], 20, CPU)
    assert [tuple(positions.shape) for positions in layers] == [(2, 20), (2, 16), (2, 16)]
    for positions, size in zip(layers, (64, 16, 16), strict=True):
        for row in positions.tolist():
            assert len(set(row)) == len(row)
            assert set(row) <= set(range(size))
    assert all(torch.equal(positions[1], single[0]) for positions, single in zip(layers, alone, strict=True))
    assert layers[0][0].tolist() != layers[0][1].tolist()
    assert layers[1][0].tolist() != layers[2][0].tolist(), "each layer has its own"


def test_all_positions_are_equally_likely() -> None:
    (positions,) = sample_positions([10], range(2000), 3, CPU)
    counts = torch.bincount(positions.flatten(), minlength=10)
    assert (counts - 600).abs().max() < 100


# -- embeddings --------------------------------------------------------------------------------------------------------


def test_embeddings_are_unit_vectors_of_each_layer_of_the_encoders() -> None:
    networks = build_autoencoders(SMALL)
    extra = Extra(1.0, networks)
    features = networks.encoder.features({i: torch.rand(2, 3, 16, 24) for i in Domain})
    positions = sample_positions([16 * 24 // s**2 for s in networks.feature_strides], [1, 2], 50, CPU)
    for i in Domain:
        embeddings = extra.embed(i, features[i], positions)
        assert [tuple(x.shape) for x in embeddings] == [(2, 50, 256)] * 2 + [(2, 24, 256)] * 2
        for x in embeddings:
            torch.testing.assert_close(x.norm(dim=2), torch.ones(x.shape[:2]))


def test_each_patch_is_taken_at_its_position_and_passes_through_its_layers_head() -> None:
    extra = Extra(1.0, build_autoencoders(SMALL))
    sizes = [(4, 6), (2, 3), (2, 3), (1, 2)]
    features = [torch.randn(2, c, *size) for c, size in zip((4, 8, 16, 16), sizes, strict=True)]
    positions = sample_positions([h * w for h, w in sizes], [1, 2], 4, CPU)
    for i in Domain:
        embeddings = extra.embed(i, features, positions)
        for head, x, at, embedding in zip(extra.heads[i.value], features, positions, embeddings, strict=True):
            for item in range(2):
                for k, position in enumerate(at[item].tolist()):
                    row, column = divmod(position, x.shape[3])
                    expected = head(x[item, :, row, column])
                    torch.testing.assert_close(embedding[item, k], expected / expected.norm())


def test_each_domain_and_layer_has_a_head_of_its_own() -> None:
    extra = Extra(1.0, build_autoencoders(SMALL))
    heads = [head for i in Domain for head in extra.heads[i.value]]
    assert [head[0].in_features for head in heads] == [4, 8, 16, 16] * 2
    assert len({head[0].weight.data_ptr() for head in heads}) == 2 * 4


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_embeddings_are_computed_in_fp32_under_autocast(precision: torch.dtype) -> None:
    extra, positions = Extra(1.0, build_autoencoders(SMALL)), [torch.arange(16)[None]] * 4
    features = [torch.randn(1, c, 4, 4, dtype=precision) for c in (4, 8, 16, 16)]
    features = [x.contiguous(memory_format=torch.channels_last) for x in features]
    with torch.autocast("cpu", torch.bfloat16):
        embeddings = extra.embed(Domain.A, features, positions)
    expected = extra.embed(Domain.A, [x.float() for x in features], positions)
    for x, y in zip(embeddings, expected, strict=True):
        assert x.dtype == torch.float32
        assert torch.equal(x, y)


# -- the terms ---------------------------------------------------------------------------------------------------------


def two_layer_autoencoders() -> Autoencoders:
    """Those of affine.py with the encoders in two layers: 2x, then half plus 1; 4x, then a quarter plus 10."""
    private = PerDomain(nn.Sequential(Affine(2), Affine(1 / 2, 1)), nn.Sequential(Affine(4), Affine(1 / 4, 10)))
    generator = Generator(nn.Identity(), PerDomain(Affine(2), Affine(3)))
    return Autoencoders(Encoder(private, nn.Identity()), generator, widths=[3], strides=[1])


def test_what_is_compared_with_what_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """E_b's layers of x_a→b = 9 with E_a's of x_a = 1 at a's positions; E_a's of x_b→a = 28 with E_b's of x_b = 2.

    The heads multiply by 100 for E_a and 1000 for E_b; the positions add 7 for a and 8 for b.
    """
    networks, compared = two_layer_autoencoders(), []
    extra = Extra(1.0, networks)

    def embed(domain: Domain, features: list[Tensor], positions: list[Tensor]) -> list[Tensor]:
        return [{"a": 100, "b": 1000}[domain] * x + at for x, at in zip(features, positions, strict=True)]

    def recorded(queries: list[Tensor], keys: list[Tensor]) -> Tensor:
        compared.append(([value(x) for x in queries], [value(x) for x in keys]))
        return torch.tensor(5.0)

    monkeypatch.setattr(extra, "embed", embed)
    monkeypatch.setattr(extra, "_positions", lambda *arguments: [torch.tensor({"a": 7, "b": 8}[arguments[-1]])] * 2)
    monkeypatch.setattr(module, "patch_nce", recorded)
    batch = Microbatch(X, seeds, NOISE, forward_pass(networks, X, NOISE))
    terms = extra.generator_terms(networks, discriminators(), batch)
    assert {name: term.item() for name, term in terms.items()} == {"patch_nce_a": 5, "patch_nce_b": 5}
    assert compared == [
        ([1000 * 36 + 7, 1000 * 19 + 7], [100 * 2 + 7, 100 * 2 + 7]),
        ([100 * 56 + 8, 100 * 29 + 8], [1000 * 8 + 8, 1000 * 12 + 8]),
    ]


def make_batch(networks: Autoencoders) -> Microbatch:
    x = make_images()
    noise = draw_noise(networks, x, seeds)
    return Microbatch(x, seeds, noise, forward_pass(networks, x, noise))


def test_the_terms_equal_the_loss_written_out() -> None:
    networks = build_autoencoders(SMALL)
    extra, batch = Extra(2.0, networks), make_batch(networks)
    assert batch.out
    terms = extra.generator_terms(networks, discriminators(), batch)
    original = networks.encoder.features({i: batch.images[i] for i in Domain})
    translated = networks.encoder.features({i: batch.out.translation[i.other] for i in Domain})
    for i in Domain:
        all_positions = sample_positions([16 * 24, 8 * 12, 4 * 6, 4 * 6], seeds("patches", i), PATCHES, CPU)
        losses = []
        for layer, positions in enumerate(all_positions):
            key, query = (
                extra.heads[domain.value][layer](x[layer].flatten(2).mT[torch.arange(4)[:, None], positions])
                for domain, x in ((i, original[i]), (i.other, translated[i.other]))
            )
            cosine = torch.cosine_similarity(query[:, :, None], key[:, None], dim=3)
            own = torch.arange(positions.shape[1]).expand(4, -1)
            losses.append(functional.cross_entropy((cosine / 0.07).mT, own))
        assert terms[f"patch_nce_{i}"].item() == pytest.approx(2 * sum(losses).item() / 4, rel=1e-5)


@pytest.mark.parametrize("autocast", [False, True])
def test_the_terms_train_heads_encoders_and_generators(autocast: bool) -> None:
    networks = build_autoencoders(SMALL)
    extra = Extra(1.0, networks)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        total(extra.generator_terms(networks, discriminators(), make_batch(networks))).backward()
    for network in (networks, extra):
        assert all(p.grad is not None and p.grad.norm() > 0 for n, p in network.named_parameters() if "weight" in n)


@pytest.mark.parametrize("autocast", [False, True])
def test_encoders_learn_from_the_queries_although_keys_are_computed_without_gradient(autocast: bool) -> None:
    """With translations held fixed; autocast must not reuse weights that it cast without gradient."""
    networks = build_autoencoders(SMALL)
    extra, batch = Extra(1.0, networks), make_batch(networks)
    assert batch.out
    batch.out = replace(batch.out, translation=batch.out.translation.map(Tensor.detach))
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        total(extra.generator_terms(networks, discriminators(), batch)).backward()
    weights = [p for name, p in networks.encoder.named_parameters() if "weight" in name]
    assert all(p.grad is not None and p.grad.norm() > 0 for p in weights)
    assert all(p.grad is None for p in networks.generator.parameters())
