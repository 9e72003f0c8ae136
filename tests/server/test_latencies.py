"""The mean time of a request, from what two scrapes count."""

from stanch.collect import Scrape, Target, parse_target
from stanch.collect.exposition import parse_exposition
from stanch.server.slowness import Latencies

SHOP, SEARCH = parse_target("http://127.0.0.1:1"), parse_target("http://127.0.0.1:2")


def scrape(target: Target, time_s: float, requests: int, seconds: float) -> Scrape:
    """A scrape of a target that has served so many requests in so many seconds."""
    text = f"stanch_request_seconds_count {requests}\nstanch_request_seconds_sum {seconds}\n"
    return Scrape(target, time_s, time_s, metrics=parse_exposition(text.encode()))


def test_it_is_of_the_requests_since_the_scrape_before() -> None:
    """The first scrape tells none, nor do scrapes without requests between; targets are apart."""
    latencies = Latencies()
    assert latencies.latency_s(scrape(SHOP, 1.0, 10, 1.0)) is None
    assert latencies.latency_s(scrape(SEARCH, 1.5, 1000, 1.0)) is None
    assert latencies.latency_s(scrape(SHOP, 2.0, 20, 3.0)) == 0.2
    assert latencies.latency_s(scrape(SHOP, 3.0, 20, 3.0)) is None
    assert latencies.latency_s(scrape(SEARCH, 3.5, 1100, 6.0)) == 0.05


def test_a_process_that_began_anew_is_not_compared_with_the_one_before() -> None:
    """Nor is a target that was forgotten; one that counts nothing has no latency."""
    latencies = Latencies()
    assert latencies.latency_s(scrape(SHOP, 1.0, 100, 50.0)) is None
    assert latencies.latency_s(scrape(SHOP, 2.0, 4, 0.1)) is None
    assert latencies.latency_s(scrape(SHOP, 3.0, 6, 0.6)) == 0.25
    latencies.forget(SHOP)
    assert latencies.latency_s(scrape(SHOP, 4.0, 16, 9.3)) is None
    assert latencies.latency_s(Scrape(SHOP, 5.0, 5.0)) is None
