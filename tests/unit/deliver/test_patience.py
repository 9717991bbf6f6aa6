"""Waits between tries."""

from __future__ import annotations

from random import Random

from overread.deliver.patience import gives_up, next_try


def test_waits_double_up_to_the_longest_and_are_drawn_from_the_upper_half() -> None:
    rng = Random(1)
    for attempts in range(1, 40):
        full = min(900.0, 5.0 * 2 ** (attempts - 1))
        for _ in range(20):
            assert full / 2 <= next_try(attempts, 5.0, 900.0, rng) <= full


def test_the_same_generator_gives_the_same_waits() -> None:
    first, second = ([next_try(n, 5.0, 900.0, rng) for n in range(1, 9)] for rng in (Random(7), Random(7)))
    assert first == second


def test_waits_of_many_deliveries_are_spread() -> None:
    rng = Random(3)
    waits = [next_try(4, 5.0, 900.0, rng) for _ in range(200)]
    assert max(waits) - min(waits) > 15.0


def test_a_million_attempts_still_give_the_longest_wait() -> None:
    assert 450.0 <= next_try(1_000_000, 5.0, 900.0, Random(0)) <= 900.0


def test_giving_up_is_a_matter_of_time() -> None:
    assert not gives_up(9.9, 10.0)
    assert gives_up(10.0, 10.0)
