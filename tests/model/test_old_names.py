import pytest

from tests.model.affine import SMALL
from unit.model.networks import build_autoencoders
from unit.model.old_names import current_name


@pytest.mark.parametrize(
    ("old", "current"),
    [
        ("encoders.a.private.0.0.weight", "encoder.private.a.0.0.weight"),
        ("encoders.b.private.3.0.body.0.bias", "encoder.private.b.3.0.body.0.bias"),
        ("encoders.a.shared.0.body.0.weight", "encoder.shared.0.body.0.weight"),
        ("encoders.b.shared.0.body.0.weight", "encoder.shared.0.body.0.weight"),
        ("generators.a.shared.1.body.3.weight", "generator.shared.1.body.3.weight"),
        ("generators.b.private.2.convolution.bias", "generator.private.b.2.convolution.bias"),
    ],
)
def test_names_of_the_version_before_are_translated(old: str, current: str) -> None:
    assert current_name(old) == current


def test_current_names_are_unchanged() -> None:
    names = list(build_autoencoders(SMALL).state_dict())
    assert [current_name(name) for name in names] == names
    assert current_name("by_domain.a.scales.0.head.weight") == "by_domain.a.scales.0.head.weight"
