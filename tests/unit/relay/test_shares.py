"""Who may hold how many connections."""

from collections.abc import Sequence

import pytest

from sesguard.relay.shares import Holder, Place, Shares

MTA, SHOP, INTRUDER, ACCOMPLICE = 101, 5001, 6001, 6002


def take_all(shares: Shares, holder: Holder, most: int, *, is_stranger: bool) -> Sequence[Place]:
    """Connect until there is no place any more."""
    taken = []
    while (place := shares.take(holder, most, is_stranger=is_stranger)) is not None:
        taken.append(place)
    return taken


@pytest.mark.parametrize(("most", "half"), [(1, 1), (2, 1), (5, 3), (500, 250)])
def test_one_uid_has_half(most: int, half: int) -> None:
    """And another one has what is left."""
    shares = Shares()
    assert half == len(take_all(shares, MTA, most, is_stranger=False))
    assert most - half == len(take_all(shares, SHOP, most, is_stranger=False))


@pytest.mark.parametrize(("most", "each"), [(2, 1), (8, 1), (16, 1), (80, 5), (500, 31)])
def test_strangers_have_an_eighth(most: int, each: int) -> None:
    """One uid has half of it; apps have all the rest."""
    shares = Shares()
    assert each == len(take_all(shares, INTRUDER, most, is_stranger=True))
    strangers = each + len(take_all(shares, ACCOMPLICE, most, is_stranger=True))
    assert max(1, most // 8) == strangers
    assert [] == take_all(shares, None, most, is_stranger=True)
    apps = [take_all(shares, uid, most, is_stranger=False) for uid in (MTA, SHOP)]
    assert most - strangers == sum(map(len, apps))


def test_place_that_is_given_back_is_free() -> None:
    """Once, however often it is given back."""
    shares = Shares()
    place, *_ = take_all(shares, INTRUDER, 80, is_stranger=True)
    place.give_back()
    place.give_back()
    assert 1 == len(take_all(shares, INTRUDER, 80, is_stranger=True))


def test_who_has_logged_in_is_no_stranger() -> None:
    """Its place among the strangers is free, that of its uid is not."""
    shares = Shares()
    shop = take_all(shares, SHOP, 8, is_stranger=True)
    assert [True] == [place.log_in("shop", 8) for place in shop]
    assert 1 == len(take_all(shares, INTRUDER, 8, is_stranger=True))
    assert 3 == len(take_all(shares, SHOP, 8, is_stranger=False))
    shop[0].give_back()
    assert 1 == len(take_all(shares, SHOP, 8, is_stranger=False))


def test_app_from_elsewhere_has_half() -> None:
    """Each counts for itself once it has logged in; a login over the share changes nothing."""
    shares = Shares()
    for _ in range(4):
        [place] = take_all(shares, None, 8, is_stranger=True)
        assert place.log_in("site", 8)
    [place] = take_all(shares, None, 8, is_stranger=True)
    assert not place.log_in("site", 8)
    assert place.is_stranger
    assert place.log_in("other", 8)
    place.give_back()
    assert 4 == len(take_all(shares, MTA, 8, is_stranger=False))


def test_lower_limit_holds_for_new_connections() -> None:
    """Settings that are read again cut nobody off, and let nobody in before others have gone."""
    shares = Shares()
    held = take_all(shares, MTA, 8, is_stranger=False)
    assert shares.take(SHOP, 4, is_stranger=False) is None
    held[0].give_back()
    assert shares.take(SHOP, 4, is_stranger=False) is not None
