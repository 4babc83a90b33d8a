"""When a robot goes home and when an episode may begin, for every order of calls."""

from __future__ import annotations

import itertools

import pytest

from wm_nodes.control.preparation import Preparation

SETTINGS = list(itertools.product([False, True], repeat=2))


def preparation_after(home: bool, confirm_home: bool, *calls: str) -> Preparation:
    preparation = Preparation(home=home, confirm_home=confirm_home)
    for call in calls:
        getattr(preparation, call)()
    return preparation


@pytest.mark.parametrize(("home", "confirm_home"), SETTINGS)
def test_only_a_prepared_episode_that_has_not_begun_is_between(home, confirm_home) -> None:
    calls = {(): False, ("prepare",): True, ("prepare", "begin"): False}
    calls |= {("prepare", "end"): False, ("end",): False, ("end", "prepare"): True}
    calls |= {("prepare", "begin", "prepare"): True, ("prepare", "begin", "end"): False}
    for order, between in calls.items():
        assert preparation_after(home, confirm_home, *order).between == between, order


@pytest.mark.parametrize(("home", "confirm_home"), SETTINGS)
def test_acting_from_begin_to_the_next_episode_and_ending_from_the_end_on(
    home, confirm_home
) -> None:
    fresh = preparation_after(home, confirm_home)
    assert not (fresh.acting or fresh.ending or fresh.called or fresh.at_home)
    begun = preparation_after(home, confirm_home, "prepare", "begin")
    assert begun.acting and not begun.ending
    prepared = preparation_after(home, confirm_home, "prepare", "begin", "prepare")
    assert not (prepared.acting or prepared.ending)
    ended = preparation_after(home, confirm_home, "prepare", "begin", "end")
    assert ended.ending and not ended.acting


def test_the_next_episode_is_prepared_away_from_home() -> None:
    preparation = preparation_after(True, False, "prepare")
    preparation.at_home = True
    assert preparation.is_home
    preparation.prepare()
    assert not preparation.is_home
    assert preparation_after(False, False, "prepare").is_home  # where the robot need not go home


@pytest.mark.parametrize(("home", "confirm_home"), SETTINGS)
@pytest.mark.parametrize("at_home", [False, True])
def test_without_a_call_it_goes_home_only_if_scheduled_and_not_there(
    home, confirm_home, at_home
) -> None:
    for order in ((), ("prepare",), ("prepare", "begin"), ("prepare", "end")):
        preparation = preparation_after(home, confirm_home, *order)
        preparation.at_home = at_home
        goes = home and not confirm_home and not at_home and order == ("prepare",)
        assert preparation.needs_home == goes, order


@pytest.mark.parametrize(("home", "confirm_home"), SETTINGS)
@pytest.mark.parametrize("at_home", [False, True])
def test_a_call_sends_it_home_unless_an_episode_is_under_way_or_none_follows(
    home, confirm_home, at_home
) -> None:
    for order in ((), ("prepare",), ("prepare", "begin"), ("prepare", "end")):
        preparation = preparation_after(home, confirm_home, *order)
        preparation.called, preparation.at_home = True, at_home
        assert preparation.needs_home == (order in ((), ("prepare",))), order


def test_the_end_forgets_a_call() -> None:
    preparation = preparation_after(True, True, "prepare")
    preparation.called = True
    preparation.end()
    assert not preparation.called


@pytest.mark.parametrize(("home", "confirm_home"), SETTINGS)
@pytest.mark.parametrize("called", [False, True])
def test_the_way_home_waits_for_a_call_only_where_it_must_be_confirmed(
    home, confirm_home, called
) -> None:
    preparation = preparation_after(home, confirm_home, "prepare")
    preparation.called = called
    assert preparation.needs_call == (home and confirm_home and not called)
