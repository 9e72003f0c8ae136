"""Delivery to a real webhook: retried, in order, through SIGKILL, never lost, never doubled."""

import subprocess
import sys
import threading
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from stanch.alert import AlarmDesk, Condition, Policy
from stanch.alert.configuration import AlarmConfiguration, ReceiverSpec, make_receivers
from stanch.alert.courier import Courier
from stanch.alert.outbox import LONGEST_RETRY_S, OutboxCounts, counts
from stanch.journal import Journal
from tests.alert.samples import Hook, Posted, leak, webhook

BEGIN = 1.7e9
LEAKS = 30
# A server in small: looks at the same thirty leaks again and again, and delivers.
SERVER = """
import sys, time
from pathlib import Path
from stanch.alert import AlarmDesk, Policy
from stanch.alert.configuration import AlarmConfiguration, ReceiverSpec, make_receivers
from stanch.alert.courier import Courier
from stanch.journal import Journal
from tests.alert.samples import leak
directory, url = Path(sys.argv[1]), sys.argv[2]
configuration = AlarmConfiguration(receivers=(ReceiverSpec("hook", "webhook", url),))
desk = AlarmDesk(Journal(directory), Policy(), configuration.receivers_of)
receivers = make_receivers(configuration, time.time)
courier = Courier(directory, receivers, configuration.receivers_of)
for step in range(1_000_000):
    count = min(30, 3 + step)
    conditions = [leak("shop", f"cause {number}") for number in range(count)]
    desk.observe(time.time(), conditions, ["shop"])
    courier.deliver()
    time.sleep(0.01)
"""


class Post:
    """A desk and a courier for one webhook, under a clock that the test sets."""

    def __init__(self, directory: Path, *hooks: Hook) -> None:
        self.now = BEGIN
        self.directory = directory
        self.configuration = AlarmConfiguration(
            receivers=tuple(
                ReceiverSpec(f"hook {number}", "webhook", hook.url)
                for number, hook in enumerate(hooks)
            )
        )
        self.journal = Journal(directory)
        self.desk = AlarmDesk(self.journal, Policy(), self.configuration.receivers_of)
        self.courier = self.new_courier()

    def new_courier(self) -> Courier:
        receivers = make_receivers(self.configuration, lambda: self.now)
        return Courier(self.directory, receivers, self.configuration.receivers_of, lambda: self.now)

    def look(self, *conditions: Condition) -> None:
        self.now += 1.0
        self.desk.observe(self.now, conditions, ["shop"])

    def deliver(self, after: float = LONGEST_RETRY_S) -> int:
        self.now += after
        return self.courier.deliver()

    def counts(self) -> OutboxCounts:
        with self.journal.read() as transaction:
            return counts(transaction)[0]

    def close(self) -> None:
        self.courier.close()
        self.journal.close()


def test_a_message_says_what_leaks(tmp_path: Path) -> None:
    """Key, subject, text and the whole alarm are in the JSON, and the key in a header."""
    with webhook() as hook:
        post = Post(tmp_path, hook)
        post.look(leak())
        assert post.deliver() == 1
        assert post.deliver() == 0
        post.close()
    (posted,) = hook.posted
    assert posted.body["subject"].startswith("[FIRING] leak (confirmed) in shop")
    assert "at its limit in 47 s" in posted.body["text"]
    assert posted.body["alarm"]["severity"] == "critical"
    assert posted.body["alarm"]["instances"] == ["shop-1", "shop-2"]
    assert posted.body["maybe_repeated"] is False
    assert posted.headers["Idempotency-Key"] == posted.body["key"]


def test_a_receiver_that_is_down_for_an_hour_gets_everything_in_order_once(tmp_path: Path) -> None:
    """Refused again and again, then taken: nothing lost, nothing doubled, nothing out of turn."""
    with webhook() as hook:
        hook.answer = lambda _posted: 503
        post = Post(tmp_path, hook)
        for number in range(5):
            post.look(*(leak(cause=f"cause {each}") for each in range(number + 1)))
        for _ in range(12):
            assert post.deliver() == 0
        assert "503" in post.counts().error
        assert post.counts().waiting == 5
        hook.posted.clear()
        hook.answer = lambda _posted: 200
        assert post.deliver() == 5
        assert [posted.body["alarm"]["cause"] for posted in hook.posted] == [
            f"cause {number}" for number in range(5)
        ]
        assert post.counts() == OutboxCounts("hook 0", 0, 5, 0, "")
        post.close()


def test_retries_come_apart_further_and_further(tmp_path: Path) -> None:
    """Within the pause after a failure nothing is tried, and the pause doubles up to a bound."""
    with webhook() as hook:
        hook.answer = lambda _posted: 500
        post = Post(tmp_path, hook)
        post.look(leak())
        for pause in (5, 10, 20, 40, 80, 160, 300, 300):
            tried = len(hook.posted)
            post.deliver(after=0.0)
            assert len(hook.posted) == tried + 1
            post.deliver(after=pause - 1.0)
            assert len(hook.posted) == tried + 1
            post.now += 1.0
        post.now -= 3 * 86_400  # a clock that is set back does not hold the message up
        post.deliver(after=0.0)
        assert len(hook.posted) == 9
        post.close()


def test_a_receiver_that_is_down_does_not_hold_up_the_others(tmp_path: Path) -> None:
    """Each receiver has its own order and its own pauses."""
    with webhook() as broken, webhook() as sound:
        broken.answer = lambda _posted: None
        post = Post(tmp_path, broken, sound)
        post.look(leak(cause="a"), leak(cause="b"))
        assert post.deliver() == 2
        assert len(sound.posted) == 2
        assert len(broken.posted) == 1
        post.close()


def test_a_message_that_is_refused_for_good_is_set_aside_and_shown(tmp_path: Path) -> None:
    """400 is final, the next message goes out; 401 is not, since a token can be put right."""
    with webhook() as hook:
        answers = iter([400, 401, 200])
        hook.answer = lambda _posted: next(answers)
        post = Post(tmp_path, hook)
        post.look(leak(cause="a"), leak(cause="b"))
        post.deliver()
        post.deliver()
        post.deliver()
        post.deliver()
        assert post.counts() == OutboxCounts("hook 0", 0, 1, 1, "answered 400: ")
        assert [posted.body["alarm"]["cause"] for posted in hook.posted] == ["a", "b", "b"]
        post.close()


def test_a_lost_answer_is_repeated_with_the_same_key_and_says_so(tmp_path: Path) -> None:
    """When the connection breaks after the request, the repetition is marked as one."""
    with webhook() as hook:
        answers = iter([None, 200])
        hook.answer = lambda _posted: next(answers)
        post = Post(tmp_path, hook)
        post.look(leak())
        post.deliver()
        post.deliver()
        post.close()
    first, again = hook.posted
    assert first.body["key"] == again.body["key"]
    assert [first.body["maybe_repeated"], again.body["maybe_repeated"]] == [False, True]


def test_two_servers_on_one_journal_deliver_once(tmp_path: Path) -> None:
    """The second courier waits while the first lives, and takes over when it is gone."""
    with webhook() as hook:
        post = Post(tmp_path, hook)
        other = post.new_courier()
        post.look(leak(cause="a"))
        assert post.deliver() == 1
        assert other.deliver() == 0
        post.look(leak(cause="a"), leak(cause="b"))
        assert other.deliver() == 0
        post.close()
        assert other.deliver() == 1
        other.close()
    assert len(hook.posted) == 2


def test_nothing_is_lost_or_doubled_through_sigkill(tmp_path: Path) -> None:
    """A server killed eight times amid looks and deliveries tells each leak once.

    Where it is killed between a delivery and its note of it, the message comes again under the
    same key and says that it may be a repetition: no other message comes twice.
    """
    amid, after = {3, 9, 16, 24}, {6, 13, 20, 28}  # numbers of the requests
    server: list[subprocess.Popen[str]] = []
    ended = threading.Event()

    def answer(_posted: Posted) -> int:
        if len(hook.posted) in amid:
            server[0].kill()
            server[0].wait(30)
        if len(hook.posted) in amid | after:
            ended.set()
        return 200

    with webhook() as hook:
        hook.answer = answer
        for _ in range(len(amid) + len(after)):
            ended.clear()
            process = subprocess.Popen(
                [sys.executable, "-c", SERVER, str(tmp_path), hook.url],
                stdout=subprocess.PIPE,
                text=True,
            )
            server[:] = [process]
            assert ended.wait(120)
            process.kill()
            process.wait(30)
            assert process.stdout is not None
            process.stdout.close()
        post = Post(tmp_path, hook)
        post.now = 4e9
        post.look(*(leak(cause=f"cause {number}") for number in range(LEAKS)))
        while post.deliver():
            pass
        post.close()
    times = Counter(hook.keys())
    assert len(times) == LEAKS
    assert {posted.body["alarm"]["cause"] for posted in hook.posted} == {
        f"cause {number}" for number in range(LEAKS)
    }
    first: set[str] = set()
    for posted in hook.posted:
        key = posted.body["key"]
        assert posted.body["maybe_repeated"] is (key in first)
        first.add(key)
    assert max(times.values()) > 1  # the kills amid a delivery did happen


def test_what_is_left_in_the_outbox_goes_out_at_the_end(tmp_path: Path) -> None:
    """A courier in its own thread delivers at once, and its close tries a last time."""
    with webhook() as hook:
        post = Post(tmp_path, hook)
        post.courier.start()
        post.look(leak(cause="a"))
        hook.wait_for(1)
        post.look(leak(cause="a"), leak(cause="b"))
        post.courier.close(deliver_for_s=30.0)
        post.journal.close()
    assert len(set(hook.keys())) == 2


def test_an_outbox_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond its bound nothing is taken in, and the alarm itself is still kept."""
    monkeypatch.setattr("stanch.alert.outbox.MOST_WAITING", 3)
    with webhook() as hook:
        post = Post(tmp_path, hook)
        post.look(*(leak(cause=f"cause {number}") for number in range(5)))
        assert post.counts().waiting == 3
        assert len(post.desk.alarms) == 5
        post.look(*(replace(leak(), fingerprint=f"{number}") for number in range(5)))
        assert post.deliver() == 3
        post.close()
