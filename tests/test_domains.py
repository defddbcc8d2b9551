import pytest

from unit.domains import Domain, PerDomain, domain_named
from unit.errors import ConfigError


def test_the_other_domain_is_its_own_inverse() -> None:
    assert [i.other for i in Domain] == [Domain.B, Domain.A]
    assert all(i.other.other is i for i in Domain)


def test_directions_start_at_the_domain() -> None:
    assert [i.direction for i in Domain] == ["a2b", "b2a"]


def test_a_pair_is_indexed_by_domain() -> None:
    pair = PerDomain(1, 2)
    assert (pair[Domain.A], pair[Domain.B], list(pair)) == (1, 2, [1, 2])
    assert pair.swapped() == PerDomain(2, 1)
    assert pair.map(str) == PerDomain("1", "2")
    assert PerDomain.of(lambda i: i.value) == PerDomain("a", "b")


def test_a_domain_is_named_by_its_letter_or_the_users_name() -> None:
    names = PerDomain("sunny", "rainy")
    assert [domain_named(text, names) for text in ("a", "sunny", "b", "rainy")] == [Domain.A] * 2 + [Domain.B] * 2
    assert domain_named("a", PerDomain("b", "a")) is Domain.A
    assert domain_named("b", PerDomain("b", "a")) is Domain.B
    with pytest.raises(ConfigError, match=r"domain A: must be a \(sunny\) or b \(rainy\)"):
        domain_named("A", names)
