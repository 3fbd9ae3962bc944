"""`async def main(kernel)`: asyncio with messages, requests, interrupts, timers and the host's words."""

from __future__ import annotations

import pytest

import multikernel as mk
from tests.eventually import PATIENCE
from tests.shm.idle import check_idle


@pytest.fixture
def peer(machine, tmp_path):
    """Another instance that echoes, on a core of its own or on one that is shared."""
    (tmp_path / "peer.py").write_text("def main(kernel):\n    for m in kernel.messages(): m.reply(m.payload)\n")
    peer = machine.create("peer", memory="32M", cpus=machine.view.machine().cpus[-1:])
    peer.load(f"{tmp_path / 'peer.py'}:main")
    peer.boot()
    yield peer
    if peer.state == "active":
        peer.kill()
    peer.delete()


def test_messages_of_all_links_come_and_the_halt_ends_them(machine, boot, web):
    link = boot("""
        async def main(kernel):
            async for message in kernel.messages():
                message.reply(message.payload)
            return 3
    """)
    with machine.connect("web", capacity="64K") as other:
        for number in range(300):
            assert link.request(b"%d" % number, timeout=PATIENCE).payload == b"%d" % number
            assert other.request(b"x" * number, timeout=PATIENCE).payload == b"x" * number
        link.send_many([b"burst"] * 1000)
        assert [link.recv(timeout=PATIENCE).payload for _ in range(1000)] == [b"burst"] * 1000
    assert link.request(b"still there", timeout=PATIENCE).payload == b"still there"
    assert web.halt(timeout=PATIENCE).code == 3


def test_views_and_a_time_out_work_as_in_the_other_loop(boot, web):
    link = boot("""
        async def main(kernel):
            async for message in kernel.messages(copy=False):
                message.reply(message.payload)
                if message.payload == b"last":
                    break
            async for message in kernel.messages(timeout=0.01):
                raise AssertionError
            return 4
    """)
    for payload in (b"one", b"two", b"last"):
        assert link.request(payload, timeout=PATIENCE).payload == payload
    assert web.wait(timeout=PATIENCE).code == 4


def test_requests_interrupts_and_timers_go_on_while_messages_are_awaited(machine, boot, peer):
    """All at once: a link asked for, a hundred requests by tasks, IPIs, both kinds of timers."""
    link = boot("""
        import asyncio
        async def main(kernel):
            seen = []
            kernel.on_ipi(3)(lambda vector, count: seen.append("ipi"))
            kernel.every(0.002, lambda count: seen.append("tick"))
            kernel.after(0.001, lambda: seen.append("after"))
            peer = await kernel.aconnect("peer", capacity="64K")
            async def ask(number):
                reply = await peer.arequest(b"%d" % number)
                assert reply.payload == b"%d" % number
                return number
            async def work(message):
                total = sum(await asyncio.gather(*(ask(number) for number in range(100))))
                while len(set(seen)) < 3:
                    await asyncio.sleep(0.001)
                await message.link.asend(f"{total} {' '.join(sorted(set(seen)))}".encode())
            tasks = []
            async for message in kernel.messages():
                if message.payload == b"work":
                    tasks.append(asyncio.create_task(work(message)))
                else:
                    message.reply(message.payload)
            await asyncio.gather(*tasks)
    """)
    link.send(b"work")
    link.ipi(3)
    assert link.request(b"meanwhile", timeout=PATIENCE).payload == b"meanwhile"
    assert link.recv(timeout=PATIENCE).payload == b"4950 after ipi tick"


def test_interrupts_run_while_main_awaits_something_else(boot):
    link = boot("""
        import asyncio
        async def main(kernel):
            event = asyncio.Event()
            kernel.on_ipi(5)(lambda vector, count: event.set())
            first = None
            async for message in kernel.messages():
                first = message
                break
            for round in range(20):
                await event.wait()
                event.clear()
                first.link.send(b"%d" % round)
    """)
    link.send(b"here I am")
    for number in range(20):
        link.ipi(5)
        assert link.recv(timeout=PATIENCE).payload == b"%d" % number


def test_one_link_may_be_awaited_by_a_task_of_its_own(machine, boot):
    """It is not lost to either: what `arecv` does not take comes out of `messages`, and IPIs come behind both."""
    link = boot("""
        import asyncio
        async def main(kernel):
            count = 0
            def tick(vector, n):
                nonlocal count
                count += n
            kernel.on_ipi(1)(tick)
            async for message in kernel.messages():
                link = message.link
                break
            async def own():
                while (message := await link.arecv()).payload != b"end":
                    message.reply(b"own " + message.payload)
                message.reply(b"%d" % count)
            await own()
            async for message in kernel.messages():
                message.reply(b"all " + message.payload)
    """)
    link.send(b"begin")
    for number in range(50):
        link.ipi(1)
        assert link.request(b"%d" % number, timeout=PATIENCE).payload == b"own %d" % number
    assert link.request(b"end", timeout=PATIENCE).payload == b"50"
    assert link.request(b"x", timeout=PATIENCE).payload == b"all x"


def test_messages_that_come_while_a_request_is_awaited_are_not_lost(boot):
    """A request by the same link takes what comes before its reply; `messages` gets it then."""
    link = boot("""
        import asyncio
        async def main(kernel):
            async def ask(link):
                reply = await link.arequest(b"question")
                link.send(b"got " + reply.payload)
            tasks = []
            async for message in kernel.messages():
                if message.payload == b"ask":
                    tasks.append(asyncio.create_task(ask(message.link)))
                else:
                    message.reply(b"echo " + message.payload)
    """)
    for _ in range(20):
        link.send(b"ask")
        question = link.recv(timeout=PATIENCE)
        assert question.payload == b"question"
        link.send(b"before the answer")
        question.reply(b"answer")
        assert sorted(link.recv(timeout=PATIENCE).payload for _ in range(2)) == [
            b"echo before the answer",
            b"got answer",
        ]


@pytest.mark.parametrize(
    ("call", "instead"),
    [
        ("next(kernel.messages())", "`async for message in kernel.messages()`"),
        ("kernel.wait(0)", "loop.add_reader"),
        ("kernel.connect('peer')", "await kernel.aconnect(...)"),
        ("message.link.recv()", "await link.arecv()"),
        ("message.link.request(b'')", "arequest(...)"),
        ("mk.wait([message.link])", "tasks that await link.arecv()"),
        ("kernel.serve(Object())", "`async for message in kernel.messages()`"),
    ],
)
def test_a_call_that_would_keep_the_event_loop_is_refused_with_what_to_do(boot, call, instead):
    link = boot(f"""
        import multikernel as mk
        class Object:
            @mk.method
            def f(self) -> None: ...
        async def main(kernel):
            async for message in kernel.messages():
                try:
                    {call}
                except RuntimeError as error:
                    message.reply(str(error).encode())
    """)
    link.send(b"x")
    message = link.recv(timeout=PATIENCE)
    while not message.payload:  # the request that the refused call has sent
        message = link.recv(timeout=PATIENCE)
    assert instead in message.payload.decode()


def test_async_for_in_a_plain_main_is_refused(boot, web):
    link = boot("""
        def main(kernel):
            for message in kernel.messages():
                try:
                    kernel.messages().__aiter__()
                except RuntimeError as error:
                    message.reply(str(error).encode())
    """)
    assert b"async def main(kernel)" in link.request(b"x", timeout=PATIENCE).payload


@pytest.mark.parametrize("what", ["kernel.on_ipi(1)(lambda vector, count: 1 / 0)", "kernel.after(0.01, lambda: 1 / 0)"])
def test_a_handler_that_raises_ends_main(boot, web, what):
    link = boot(f"""
        async def main(kernel):
            async for message in kernel.messages():
                {what}
                message.reply(b"")
    """)
    link.request(b"x", timeout=PATIENCE)
    link.ipi(1)
    end = web.wait(timeout=PATIENCE)
    assert (end.reason, end.code) == ("exception", 1)
    assert "ZeroDivisionError" in end.traceback


def test_the_traceback_of_main_begins_in_the_image(boot, web):
    boot("""
        async def main(kernel):
            async for message in kernel.messages():
                raise LookupError("on purpose")
    """).send(b"x")
    end = web.wait(timeout=PATIENCE)
    assert end.traceback.splitlines()[1].startswith('  File "image:image.py", line 4, in main')


def test_an_asynchronous_instance_that_waits_does_nothing_at_all(boot, web):
    """No thread, no time slices; after messages, interrupts and requests of its own."""
    link = boot("""
        import threading
        async def main(kernel):
            kernel.after(3600, print)
            async for message in kernel.messages():
                message.reply(b"%d" % threading.active_count())
    """)
    assert link.request(b"x", timeout=PATIENCE).payload == b"1"
    link.ipi(3)
    check_idle(web.pid)
    assert link.request(b"x", timeout=PATIENCE).payload == b"1"


def test_unread_messages_that_nobody_takes_do_not_keep_it_busy(boot, web):
    link = boot("""
        import asyncio
        async def main(kernel):
            async for message in kernel.messages():
                break
            await asyncio.Event().wait()
    """)
    link.send_many([b"x"] * 10)
    check_idle(web.pid)


def test_a_service_in_asyncio_serves_many_calls_at_once(boot, web):
    class Gate:
        @mk.method
        async def wait(self) -> int: ...

        @mk.method
        def open(self) -> None: ...

    link = boot("""
        import asyncio
        import multikernel as mk
        class Gate:
            def __init__(self):
                self.opened, self.waiting = asyncio.Event(), 0
            @mk.method
            async def wait(self) -> int:
                self.waiting += 1
                await self.opened.wait()
                return self.waiting
            @mk.method
            def open(self) -> None:
                self.opened.set()
        async def main(kernel):
            await kernel.aserve(Gate())
            return 6
    """)
    gate = link.proxy(Gate, timeout=PATIENCE)
    calls = [mk.begin(gate.wait) for _ in range(10)]
    gate.open()
    assert [call.result() for call in calls] == [10] * 10
    mk.begin(gate.wait)
    assert web.halt(timeout=PATIENCE).code == 6


def test_links_go_on_with_another_incarnation_of_either_end(boot, web, peer):
    """Whichever is rebooted: requests and messages that are under way are dealt with by the next."""
    link = boot("""
        async def main(kernel):
            peer = await kernel.aconnect("peer", capacity="64K")
            async for message in kernel.messages():
                message.reply((await peer.arequest(message.payload)).payload)
    """)
    for number, reboots in enumerate([web, peer, web, peer]):
        assert link.request(b"before %d" % number, timeout=PATIENCE).payload == b"before %d" % number
        call = link.begin(b"meanwhile %d" % number)
        reboots.reboot(timeout=PATIENCE)
        assert call.reply(timeout=PATIENCE).payload == b"meanwhile %d" % number
    assert (web.epoch, peer.epoch) == (3, 3)
