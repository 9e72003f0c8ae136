"""Whose memory it is: names the route or job that what runs from here on belongs to.

    with stanch.label("nightly report"):
        ...

What is sampled inside carries the text as its label `route`. It follows the context: over `await`,
into tasks, `asyncio.to_thread` and copies of the context, but not into a plain new thread. Texts
are kept for the life of the process, the first 190 bytes of at most 1,000 different ones; later
ones count as "[too many routes]". So name a kind of work, never a single customer or order.
"""

import functools
import inspect
from collections.abc import AsyncGenerator, Callable, Generator
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, cast

core: Any = None
if TYPE_CHECKING:
    from stanch.sampler import _core as _typed

    Label: TypeAlias = _typed.Label
else:
    try:
        from stanch.sampler import _core as core

        Label = core.Label
    except ImportError:  # an interpreter without samples has no use for labels
        Label = object

_Function = TypeVar("_Function", bound=Callable[..., Any])


def current() -> Label | None:
    """Return the label of this context."""
    return core.route.get(None) if core is not None else None


class label:  # noqa: N801 # in use it reads as a statement
    """Labels what runs inside a `with`, or each call of a function, coroutine or generator.

    As a decorator of generators it holds while the generator runs, not while its consumer does.
    """

    __slots__ = ("_before", "_mark", "_route")

    def __init__(self, route: str) -> None:
        """Raise TypeError when `route` is no text."""
        if not isinstance(route, str):
            raise TypeError(f"a label is {route!r}; expected a text")
        # What UTF-8 cannot hold, such as half a surrogate pair, is not worth an error.
        self._route = route.encode("utf-8", "replace").decode()
        self._mark: Label | None = None
        self._before: Label | None = None

    def __enter__(self) -> None:
        if core is None:
            return
        if self._mark is not None:
            raise RuntimeError("this label is in use already; make one for each `with`")
        self._mark = core.Label(self._route)
        self._before = core.enter(self._mark)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        mark, self._mark = self._mark, None
        before, self._before = self._before, None
        if mark is not None:
            core.leave(mark, before)

    def __call__(self, function: _Function) -> _Function:
        """Return the function, labelled; it stays what it was: coroutine function or generator."""
        route = self._route
        made: Callable[..., Any]
        if inspect.iscoroutinefunction(function):

            async def made(*args: Any, **kwargs: Any) -> Any:
                with label(route):
                    return await function(*args, **kwargs)

        elif inspect.isasyncgenfunction(function):
            made = _by_async_step(route, function)
        elif inspect.isgeneratorfunction(function):
            made = _by_step(route, function)
        else:

            def made(*args: Any, **kwargs: Any) -> Any:
                with label(route):
                    return function(*args, **kwargs)

        return cast(_Function, functools.wraps(function)(made))


def _by_step(route: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def made(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        generator = function(*args, **kwargs)
        step, given = generator.send, None
        while True:
            try:
                with label(route):
                    item = step(given)
            except StopIteration as end:
                return end.value
            try:
                step, given = generator.send, (yield item)
            except GeneratorExit:
                with label(route):
                    generator.close()
                raise
            except BaseException as error:
                step, given = generator.throw, error

    return made


def _by_async_step(route: str, function: Callable[..., Any]) -> Callable[..., Any]:
    async def made(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        generator = function(*args, **kwargs)
        step, given = generator.asend, None
        while True:
            try:
                with label(route):
                    item = await step(given)
            except StopAsyncIteration:
                return
            try:
                step, given = generator.asend, (yield item)
            except GeneratorExit:
                with label(route):
                    await generator.aclose()
                raise
            except BaseException as error:
                step, given = generator.athrow, error

    return made
