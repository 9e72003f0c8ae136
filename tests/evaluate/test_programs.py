"""A leak, its repaired twin and a look-alike as real programs, watched as `stanch watch` does."""

from eval.programs.run import play, summary


def test_a_leak_is_named_and_neither_its_twin_nor_a_cache_is() -> None:
    """An lru_cache without a bound is confirmed with its function; with a bound it is not.

    It takes about half a minute, of which most is the leak taking a twelfth of its room.
    """
    programs = [("lru_cache", "leak"), ("lru_cache", "fixed"), ("bounded", "healthy")]
    named = lambda leak: leak.named_s is not None  # noqa: E731 -- it is said once
    played = play(programs, 25.0, until=named, ticks_per_s=52.0, every_s=2.5)
    leak = played[0]
    assert (leak.kind, leak.credit) == ("leak", 1.0)
    assert summary(played)["wrong"] == {}
