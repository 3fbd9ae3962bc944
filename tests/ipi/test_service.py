"""Services: methods called over a link, with their types, errors and deadlines."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from concurrent.futures import CancelledError

import pytest

import multikernel as mk
from multikernel.ipi.carried import from_plain, to_plain
from multikernel.ipi.interface import CALL, HEADER, SERVICE, interface_of
from tests.shm.children import LIMIT, Words

from .pair import joined
from .services import Colour, Missing, Odd, Point, Slow, Store


def serve(link: mk.Link, words: Words) -> None:
    """Serve a Store; what is no call is echoed."""
    service = mk.Service(Store())
    for message in link:
        if not service.handle(message):
            message.reply(message.payload)


def serve_async(link: mk.Link, words: Words) -> None:
    """Serve a Slow in asyncio, until the other side is gone."""

    async def main() -> None:
        service = mk.Service(Slow())
        async for message in link:
            service.start(message)
        await service.finish()

    asyncio.run(main())


@pytest.fixture
def link() -> Iterator[mk.Link]:
    with joined(serve) as (link, _):
        yield link


@pytest.fixture
def store(link) -> Store:
    return link.proxy(Store, timeout=LIMIT)


# --- calls


def test_methods_are_called_with_their_types(store):
    assert store.put("a", b"1") == 1
    assert store.put(value=b"2", key="b", twice=True) == 2
    assert (store.get("a"), store.get("b"), store.get("c")) == (b"1", b"22", None)
    points = {"one": Point(1, 2.0, ["x"]), "two": Point(3, 4.0)}
    assert store.move(points) == [Point(2, 2.5, ["x"], Colour.BLUE), Point(4, 4.5, [], Colour.BLUE)]
    assert store.move({}, (0, 0.0)) == []
    assert store.nothing() is None
    assert repr(store) == "<proxy of Store of child>"


def test_only_what_is_marked_can_be_called(store):
    with pytest.raises(AttributeError):
        store.hidden()


def test_arguments_are_checked_on_both_sides(store):
    with pytest.raises(TypeError, match=r"put\(key: str, .*missing a required argument: 'value'"):
        store.put("a")
    with pytest.raises(TypeError, match="too many positional"):
        store.get("a", "b")
    with pytest.raises(TypeError, match=r"put\(key: str, value: bytes, twice: bool\).*Expected `str`, got `int`"):
        store.put(7, b"")
    with pytest.raises(TypeError, match="unsupported"):
        store.put("a", object())
    with pytest.raises(TypeError, match=r"Store.wrong returned what it should not: Expected `int`, got `str`"):
        store.wrong()
    assert store.get("a") is None


def test_a_result_that_does_not_fit_is_an_error_of_its_own(store):
    with pytest.raises(mk.MessageTooLarge):
        store.cannot_be_sent()
    assert store.get("a") is None


@pytest.mark.parametrize(
    ("how", "kind", "args"),
    [
        ("builtin", ValueError, ("not", 7)),
        ("file", FileNotFoundError, (2, "No such file or directory")),
        ("unicode", UnicodeDecodeError, ("utf-8", b"\xff", 0, 1, "invalid start byte")),
        ("ours", mk.ResourceError, ("no cpu",)),
        ("declared", Missing, ("k", ["a", "b"])),
    ],
)
def test_errors_come_with_their_type_and_where_they_were_raised(store, how, kind, args):
    with pytest.raises(kind) as caught:
        store.fail(how)
    assert type(caught.value) is kind
    assert caught.value.args == args
    assert "raised in 'child', Store.fail" in caught.value.__notes__[0]
    assert "raise raised[how]" in caught.value.__notes__[0]


def test_errors_keep_what_they_carry(store):
    with pytest.raises(FileNotFoundError) as caught:
        store.fail("file")
    assert caught.value.filename == "/nowhere"
    with pytest.raises(mk.ResourceError) as ours:
        store.fail("ours")
    assert ours.value.free == (1, 2)
    with pytest.raises(Missing) as declared:
        store.fail("declared")
    assert (declared.value.key, declared.value.there) == ("k", ["a", "b"])
    with pytest.raises(KeyError, match="class 'object'"):
        store.fail("unplain")


def test_an_error_that_is_not_known_here_says_what_it_was(store):
    with pytest.raises(mk.RemoteError, match=r"'child', Store.fail: .*Odd: strange") as caught:
        store.fail("odd")
    assert caught.value.type.endswith("services.Odd")
    assert store.get("a") is None


@pytest.mark.parametrize(
    "forged",
    [
        [0, "SystemExit", [], "", ""],
        [0, "eval", ["1"], "", ""],
        [0, "ValueError", 7, "", ""],
        [0, "UnicodeDecodeError", [], "", ""],
        [1, "Closed", "no document", "", ""],
        [2, "Odd", [], "", ""],
        [2, "os.system", ["true"], "", ""],
        [3, "x", [], "", ""],
        [9, "x", [], "", ""],
        "text",
        None,
        [[]],
    ],
)
def test_no_class_is_looked_for_where_the_other_side_says(forged):
    error = from_plain(forged, (Missing,), "there")
    assert type(error) in (mk.RemoteError, mk.MultikernelError)
    assert "raised in there" in error.__notes__[0]


def test_an_error_of_a_subclass_comes_as_the_class_that_is_declared():
    class Narrow(Missing):
        pass

    error = from_plain(to_plain(Narrow("k", []), (Missing,)), (Missing,), "there")
    assert type(error) is Missing
    assert type(from_plain(to_plain(Odd("x"), ()), (), "there")) is mk.RemoteError


def test_a_declared_error_with_a_constructor_of_its_own_comes_with_its_type_and_text():
    class Lacking(Exception):
        def __init__(self, key: str, there: int) -> None:
            super().__init__(f"no {key} among {there}")

    error = from_plain(to_plain(Lacking("k", 5), (Lacking,)), (Lacking,), "there")
    assert type(error) is Lacking
    assert str(error) == "no k among 5"


# --- several under way, deadlines, cancelling


def test_many_calls_are_under_way_at_once(link, store):
    calls = [mk.begin(store.put, f"key {number}", b"x") for number in range(100)]
    link.send(b"a message in between")
    assert [call.result() for call in calls] == list(range(1, 101))
    assert all(call.done() for call in calls)
    assert calls[3].result() == 4
    assert link.recv(timeout=LIMIT).payload == b"a message in between"


def test_more_calls_than_the_lanes_hold_are_under_way(link, store):
    """Each side would wait for the other to make room, if who begins did not take the replies meanwhile."""
    store.put("a", b"x" * 1000)
    calls = [mk.begin(store.get, "a") for _ in range(3000)]
    assert {call.result() for call in calls[:-100]} == {b"x" * 1000}
    link.send(b"and a message")  # which waits for room, and takes nothing meanwhile: not while both lanes may be full
    assert {call.result() for call in calls[-100:]} == {b"x" * 1000}
    assert link.recv(timeout=LIMIT).payload == b"and a message"

    async def main() -> None:
        astore = link.aproxy(Store, timeout=LIMIT)
        assert set(await asyncio.gather(*(astore.get("a") for _ in range(3000)))) == {b"x" * 1000}

    for _ in range(2):  # each time in another event loop
        asyncio.run(main())


def test_a_call_for_which_there_is_no_room_in_time_is_not_sent():
    def deaf(link: mk.Link, words: Words) -> None:
        words.expect("read")
        serve(link, words)

    with joined(deaf, capacity=4096) as (link, child):
        store = link.proxy(Store, timeout=0.01)
        with pytest.raises(mk.Timeout, match="made no room within"):
            [mk.begin(store.nothing) for _ in range(1000)]
        child.say("read")
        assert link.proxy(Store, timeout=LIMIT).count() < 1000


def test_begin_takes_methods_of_proxies_only(store):
    with pytest.raises(TypeError, match="begin takes a method of a proxy"):
        mk.begin(print, "x")
    call = mk.begin(store.fail, "builtin")
    with pytest.raises(ValueError, match="not"):
        call.result()


def test_a_call_whose_deadline_has_passed_is_not_begun(link, store):
    busy = mk.begin(store.spin, 0.1)
    late = mk.begin(link.proxy(Store, timeout=0.02).nothing)
    with pytest.raises(TimeoutError):
        late.result()
    assert busy.result() == 0.1
    assert store.count() == 0
    store.nothing()
    assert store.count() == 1


def test_a_call_that_is_cancelled_or_forgotten_is_a_late_reply(link, store):
    call = mk.begin(store.nothing)
    call.cancel()
    call.cancel()
    assert call.done()
    with pytest.raises(CancelledError):
        call.result()
    forgotten = mk.begin(store.nothing)
    del forgotten
    gc.collect()
    assert store.count() == 2
    assert link.late_replies == 2


def test_a_call_after_the_other_side_is_gone_is_closed():
    with joined(serve) as (link, child):
        store = link.proxy(Store, timeout=LIMIT)
        call = mk.begin(store.spin, 1000.0)
        child.kill()
        with pytest.raises(mk.Closed):
            call.result()
        with pytest.raises(mk.Closed):
            store.get("a")


# --- what is no such service


def test_another_idea_of_the_class_is_an_error_that_names_both(link):
    class Store:
        @mk.method
        def get(self, key: str) -> str: ...

    with pytest.raises(mk.MultikernelError, match="'child' does not serve Store as it is known here") as caught:
        link.proxy(Store, timeout=LIMIT).get("a")
    assert "get(key: str) -> str" in caught.value.here
    assert "get(key: str) -> bytes | None" in caught.value.there[0]
    assert "get(key: str) -> bytes | None" in str(caught.value)


def test_an_end_that_serves_nothing_is_said_to():
    def echo(link: mk.Link, words: Words) -> None:
        for message in link:
            message.reply(message.payload)

    with joined(echo) as (link, _), pytest.raises(mk.MultikernelError, match=r"and so not as a service.*kernel\.serve"):
        link.proxy(Store, timeout=LIMIT).nothing()


def test_what_is_no_call_is_left_alone_and_nonsense_is_refused(link, store):
    assert link.request(b"plain", timeout=LIMIT).payload == b"plain"
    for nonsense in (b"", b"x" * 17, b"\0" * 18, HEADER.pack(interface_of(Store).digest, 0, 999)):
        assert link.request(nonsense, type=SERVICE, subtype=CALL, timeout=LIMIT).subtype != 0
    number = next(method.number for method in interface_of(Store).methods if method.name == "get")
    for arguments in (b"", b"\xc1", b"\xdd\xff\xff\xff\xff", b"\x91"):
        payload = HEADER.pack(interface_of(Store).digest, 0, number) + arguments
        assert link.request(payload, type=SERVICE, subtype=CALL, timeout=LIMIT).subtype == 1
    assert store.get("a") is None


def test_the_digest_is_of_types_and_fields_and_of_nothing_else():
    def made(field: type, doc: str) -> int:
        class Item:
            """..."""

        Item.__doc__ = doc
        Item.__annotations__ = {"a": field}
        from dataclasses import dataclass

        class Service:
            @mk.method
            def call(self, item): ...

        Service.call.__annotations__ = {"item": dataclass(Item), "return": None}
        return interface_of(Service).digest

    assert made(int, "one") == made(int, "another")
    assert made(int, "one") != made(str, "one")


def test_a_class_that_cannot_be_called_over_a_link_is_refused_with_the_reason():
    class Empty:
        def call(self) -> None: ...

    class NoType:
        @mk.method
        def call(self, x) -> None: ...

    class NoResult:
        @mk.method
        def call(self, x: int): ...

    class Many:
        @mk.method
        def call(self, *x: int) -> None: ...

    class Unknown:
        @mk.method
        def call(self, x: Store) -> None: ...

    for service, why in (
        (Empty, "offers nothing"),
        (NoType, "parameter 'x' has no type"),
        (NoResult, "no type of its result"),
        (Many, "cannot be called over a link"),
        (Unknown, "msgspec does not know Store"),
    ):
        with pytest.raises(TypeError, match=why):
            interface_of(service)
    with pytest.raises(ValueError, match="two objects of class Store"):
        mk.Service(Store(), Store())


# --- in asyncio


def test_calls_in_asyncio_are_tasks_and_a_cancelled_one_is_so_there():
    async def main(link: mk.Link) -> None:
        slow = link.aproxy(Slow, timeout=LIMIT)
        waiting = [asyncio.create_task(slow.wait()) for _ in range(5)]
        while (await slow.figures())[0] < 5:
            pass
        waiting[0].cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting[0]
        while await slow.figures() != (5, 1):
            pass
        with pytest.raises(TimeoutError):
            await link.aproxy(Slow, timeout=0.02).wait()
        while (await slow.figures())[1] != 2:  # the service has stopped it by itself
            pass
        await slow.open()
        assert await asyncio.gather(*waiting[1:]) == [6] * 4

    with joined(serve_async) as (link, _):
        asyncio.run(main(link))


def test_a_call_that_is_cancelled_by_a_caller_without_asyncio_is_stopped_too():
    with joined(serve_async) as (link, _):
        slow = link.proxy(Slow, timeout=LIMIT)
        call = mk.begin(slow.wait)
        call.cancel()
        while slow.figures() not in ((1, 1), (0, 0)):
            pass
        slow.open()


def test_an_async_method_is_refused_where_nothing_awaits_it():
    with pytest.raises(TypeError, match=r"figures\(\) -> .* is async: serve it by `await kernel\.aserve"):
        mk.Service(Slow()).check_plain()
