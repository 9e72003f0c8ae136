"""Every way in which Python's stack of frames is not a plain one."""

import pytest

from tests.staysup.hosts import SANITIZED, Place

SWITCHES_STACKS = pytest.mark.skipif(
    SANITIZED, reason="the address sanitizer takes a switched stack for an overflow"
)


def test_deep_recursion(place: Place) -> None:
    """Recursion up to any limit, in Python and through C, ends as it does without Stanch."""
    end = place.same(
        """
        import sys
        def down(n):
            kept = [n, bytes(50)]
            return 1 + down(n - 1) if n else len(kept)
        sys.setrecursionlimit(60_000)
        print(down(50_000))
        sys.setrecursionlimit(500)
        for _ in range(3):
            try:
                down(1000)
            except RecursionError as error:
                print(error)
        class Nested:
            def __repr__(self):
                return str([Nested()])
        try:
            repr(Nested())
        except RecursionError:
            print("through C")
        """
    )
    assert end.code == 0 and end.out.count("maximum recursion") == 3


def test_generators_in_every_state(place: Place) -> None:
    """Generators that are suspended, closed, thrown into, dropped half-way and passed on."""
    end = place.same(
        """
        import threading
        def numbers(n):
            try:
                for i in range(n):
                    yield [i] * 20
            finally:
                str(n) * 10
        def nested(depth):
            if depth:
                yield from nested(depth - 1)
            yield from (each for each in numbers(5))
        total = 0
        for depth in range(60):
            total += sum(map(len, nested(depth)))
        waiting = [numbers(10) for _ in range(300)]
        for each in waiting:
            next(each)
        for each in waiting[::3]:
            each.close()
        for each in waiting[1::3]:
            try:
                each.throw(ValueError("x" * 100))
            except ValueError as error:
                total += len(str(error))
        moved = waiting[2::3]
        thread = threading.Thread(target=lambda: [list(each) for each in moved])
        thread.start()
        thread.join()
        del waiting, moved
        print(total)
        """
    )
    assert (end.code, end.err) == (0, "")


def test_frames_that_are_looked_at_and_kept(place: Place) -> None:
    """Frame objects, tracebacks, tracing, f_lineno jumps and code replaced at run time."""
    end = place.same(
        """
        import sys
        seen = []
        def tracer(frame, event, argument):
            seen.append((frame.f_code.co_name, event))
            return tracer
        def fail(n):
            local = [n] * 30
            if not n:
                raise KeyError(local)
            fail(n - 1)
        kept = []
        sys.settrace(tracer)
        for n in range(30):
            try:
                fail(n)
            except KeyError as error:
                kept.append(error.__traceback__)
        sys.settrace(None)
        sys.setprofile(lambda *event: seen.append(event[1]))
        [str(n) * 9 for n in range(100)]
        sys.setprofile(None)
        def numbers():
            frame = sys._getframe()
            kept.append(frame)
            yield frame.f_lineno
            yield [frame.f_back]
        for _ in range(200):
            list(numbers())
            numbers.__code__ = numbers.__code__.replace(co_name="renamed" + str(_))
        print(len(seen), len(kept))
        """
    )
    assert end.code == 0


def test_asyncio(place: Place) -> None:
    """Tasks, cancellations, async generators and executors."""
    end = place.same(
        """
        import asyncio
        async def ticks(n):
            for i in range(n):
                await asyncio.sleep(0)
                yield [i] * 10
        async def work(n):
            total = 0
            async for each in ticks(20):
                total += len(each)
            return total + n
        async def slow():
            try:
                await asyncio.sleep(1000)
            finally:
                bytes(2000)
        async def main():
            tasks = [asyncio.create_task(work(n)) for n in range(100)]
            doomed = [asyncio.create_task(slow()) for _ in range(100)]
            await asyncio.sleep(0)
            for each in doomed:
                each.cancel()
            gone = await asyncio.gather(*doomed, return_exceptions=True)
            loop = asyncio.get_running_loop()
            done = await asyncio.gather(*(loop.run_in_executor(None, sorted, "x" * n)
                                          for n in range(50)))
            return sum(await asyncio.gather(*tasks)), len(gone), sum(map(len, done))
        for _ in range(3):
            print(asyncio.run(main()))
        """
    )
    assert (end.code, end.err) == (0, "")


def test_signal_handlers(place: Place) -> None:
    """A timer that interrupts the host a thousand times a second, with a handler that allocates."""
    end = place.same(
        """
        import signal
        caught = []
        def handler(number, frame):
            caught.append([frame.f_lineno, bytes(300)])
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
        total = 0
        while len(caught) < 200:
            total = sum(len(str(n)) for n in range(2000))
        signal.setitimer(signal.ITIMER_REAL, 0)
        print(total)
        """
    )
    assert (end.code, end.err) == (0, "")


@SWITCHES_STACKS
def test_greenlets(place: Place) -> None:
    """Greenlets that switch, nest, raise across a switch and die unfinished, in several threads."""
    end = place.same(
        """
        import threading
        from greenlet import getcurrent, greenlet
        def down(n, switch):
            kept = [n] * 20
            if n:
                return down(n - 1, switch) + len(kept)
            switch()
            return len(kept)
        def session(answers):
            main = getcurrent()
            def work(n):
                for i in range(5):
                    answers.append(down(n, main.switch))
            def fail():
                main.switch([bytes(500)])
                raise ValueError("over the switch")
            alive = [greenlet(work) for _ in range(30)]
            for number, each in enumerate(alive):
                each.switch(number)
            for _ in range(4):
                for each in alive:
                    each.switch()
            failing = greenlet(fail)
            failing.switch()
            try:
                failing.switch()
            except ValueError as error:
                answers.append(len(str(error)))
        answers = [[] for _ in range(4)]
        threads = [threading.Thread(target=session, args=(each,)) for each in answers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        session(answers[0])
        print([sum(each) for each in answers])
        """
    )
    assert (end.code, end.err) == (0, "")


@SWITCHES_STACKS
def test_gevent(place: Place) -> None:
    """A gevent host, patched all through, with a server, clients and a thread pool."""
    end = place.same(
        """
        from gevent import monkey
        monkey.patch_all()
        import gevent, socket, threading
        from gevent.pool import Pool
        from gevent.server import StreamServer
        def serve(connection, address):
            connection.sendall(connection.recv(100) * 10)
        server = StreamServer(("127.0.0.1", 0), serve)
        server.start()
        def ask(n):
            with socket.create_connection(("127.0.0.1", server.server_port)) as connection:
                connection.sendall(str(n).encode())
                connection.shutdown(socket.SHUT_WR)
                return len(b"".join(iter(lambda: connection.recv(1000), b"")))
        print(sum(Pool(20).map(ask, range(200))))
        print(sum(gevent.get_hub().threadpool.map(len, ["x" * n for n in range(50)])))
        threads = [threading.Thread(target=ask, args=(n,)) for n in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        server.stop()
        """
    )
    assert (end.code, end.err) == (0, "")


@SWITCHES_STACKS
def test_gevent_that_forks(place: Place) -> None:
    """Forks of a patched host: its own fork hooks find what they expect, and nothing blocks it."""
    end = place.same(
        """
        from gevent import monkey
        monkey.patch_all()
        import gevent, os, subprocess, warnings
        warnings.simplefilter("ignore")
        ticks = []
        def tick():
            while True:
                gevent.sleep(0.001)
                ticks.append(bytes(100))
        ticking = gevent.spawn(tick)
        for number in range(5):
            pid = os.fork()
            if pid == 0:
                gevent.joinall([gevent.spawn(gevent.sleep, 0.05) for _ in range(10)])
                os._exit(number)
            before = len(ticks)
            print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), len(ticks) > before)
            print(subprocess.run(["echo", "child"], capture_output=True).stdout)
        """
    )
    assert (end.code, end.err) == (0, "") and end.out.count("True") == 5
