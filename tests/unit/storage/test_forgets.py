"""What one process forgets the others hear of: in order, once, and never half."""

from __future__ import annotations

from proxy.storage.forgets import FORGETS_BYTES, RING, Forgets


def two() -> tuple[Forgets, Forgets]:
    memory = memoryview(bytearray(FORGETS_BYTES))
    return Forgets(memory, 1), Forgets(memory, 2)


def test_others_hear_of_an_id_once_and_who_forgot_it_does_not() -> None:
    one, other = two()
    news = [other.is_news]
    one.add("a")
    one.add("b-" * 64)
    news.append(other.is_news)
    assert other.news() == ["a", "b-" * 64]
    news.append(other.is_news)
    assert news == [False, True, False]
    assert other.news() == []
    assert one.news() == []


def test_what_was_forgotten_before_a_process_began_is_no_news_to_it() -> None:
    memory = memoryview(bytearray(FORGETS_BYTES))
    Forgets(memory, 1).add("a")
    assert not Forgets(memory, 2).is_news


def test_who_is_too_far_behind_is_told_to_drop_everything_and_then_hears_again() -> None:
    one, other = two()
    for number in range(RING + 1):
        one.add(f"clip-{number}")
    assert other.news() is None
    one.add("again")
    assert other.news() == ["again"]


def test_as_many_as_the_ring_holds_are_all_heard_of() -> None:
    one, other = two()
    names = [f"clip-{number}" for number in range(RING)]
    for name in names:
        one.add(name)
    assert other.news() == names


def test_an_entry_that_is_not_whole_is_taken_for_any() -> None:
    memory = memoryview(bytearray(FORGETS_BYTES))
    one, other = Forgets(memory, 1), Forgets(memory, 2)
    one.add("a")
    memory[40] ^= 1
    assert other.news() is None


def test_whether_an_id_was_forgotten_since_a_moment_can_be_asked() -> None:
    one, _ = two()
    one.add("before")
    since = one.count
    one.add("after")
    assert (one.has("before", since), one.has("after", since)) == (False, True)
    for number in range(RING):
        one.add(f"clip-{number}")
    assert one.has("before", since)  # nobody knows any more
