"""Which of several ways to say the same a destination gets."""

from __future__ import annotations

from overread.domain.result import Result, choose


def made(kind: str, variant: str = "", alternative: str = "") -> Result:
    uid = f"{kind} {alternative} {variant}"
    return Result(kind, f"class of {kind} {variant}", uid, "", "", "", "", "", alternative, variant)


ALL = [
    made("seg", "labelmap", "seg/1"),
    made("seg", "labelmap", "seg/2"),
    made("seg", "binary", "seg/1"),
    made("seg", "binary", "seg/2"),
    made("sr", "labelmap", "sr"),
    made("sr", "binary", "sr"),
    made("sc"),
]


def test_one_variant_goes_and_all_that_has_no_alternative() -> None:
    assert choose(ALL, ["labelmap", "binary"], lambda r: True) == [ALL[0], ALL[1], ALL[4], ALL[6]]
    assert choose(ALL, ["binary", "labelmap"], lambda r: True) == [ALL[2], ALL[3], ALL[5], ALL[6]]


def test_what_is_not_accepted_gives_way_to_the_next() -> None:
    chosen = choose(ALL, ["labelmap", "binary"], lambda r: r.sop_class_uid != "class of seg labelmap")
    assert chosen == [ALL[2], ALL[3], ALL[5], ALL[6]]


def test_variants_that_were_not_made_are_passed_over() -> None:
    assert choose(ALL, ["fractional", "binary"], lambda r: True) == [ALL[2], ALL[3], ALL[5], ALL[6]]


def test_when_nothing_is_accepted_the_last_goes_and_is_refused_there() -> None:
    assert choose(ALL, ["labelmap", "binary"], lambda r: False) == [ALL[2], ALL[3], ALL[5], ALL[6]]
    assert choose(ALL[6:], ["binary"], lambda r: False) == [ALL[6]]
