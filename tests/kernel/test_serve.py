"""`kernel.serve`: an image whose objects are called, beside messages that are no calls."""

from __future__ import annotations

import multikernel as mk
from tests.eventually import PATIENCE

COUNTER = """
    import multikernel as mk
    class Counter:
        total = 0
        @mk.method
        def add(self, n: int) -> int:
            self.total += n
            return self.total
        @mk.method
        def leave(self) -> None:
            raise SystemExit(5)
"""


class Counter:
    """What the callers know of it."""

    @mk.method
    def add(self, n: int) -> int: ...

    @mk.method
    def leave(self) -> None: ...


def test_an_image_serves_several_callers_until_its_halt(machine, boot, web):
    link = boot(COUNTER + "    def main(kernel): kernel.serve(Counter())")
    with machine.connect("web", capacity="64K") as other:
        assert link.proxy(Counter, timeout=PATIENCE).add(1) == 1
        assert other.proxy(Counter, timeout=PATIENCE).add(2) == 3
    assert link.proxy(Counter, timeout=PATIENCE).add(3) == 6
    assert web.halt(timeout=PATIENCE).code == 0


def test_messages_that_are_no_calls_go_to_the_image_or_are_said_to_be_dropped(boot, console, web):
    link = boot(COUNTER + "    def main(kernel): kernel.serve(Counter(), other=lambda m: m.reply(m.payload))")
    assert link.request(b"plain", timeout=PATIENCE).payload == b"plain"
    assert link.proxy(Counter, timeout=PATIENCE).add(1) == 1
    web.kill()
    link = boot(COUNTER + "    def main(kernel): kernel.serve(Counter())")
    link.send(b"plain", type=mk.USER)
    assert link.proxy(Counter, timeout=PATIENCE).add(1) == 1
    assert "dropped a message that is no call sender=" in console()
    assert "type=0x4000" in console()


def test_what_a_method_does_to_the_whole_instance_is_done(boot, web):
    link = boot(COUNTER + "    def main(kernel): kernel.serve(Counter())")
    call = mk.begin(link.proxy(Counter, timeout=PATIENCE).leave)
    end = web.wait(timeout=PATIENCE)
    assert (end.reason, end.code) == ("exit", 5)
    try:
        call.result()
    except mk.Closed:
        pass
    else:
        raise AssertionError("a dead instance has answered")


def test_a_call_that_an_incarnation_died_of_is_made_again_by_the_next(machine, tmp_path):
    """The link goes on with the next incarnation, and the call with it: its caller does not notice."""

    class Frail:
        @mk.method
        def die_once(self) -> int: ...

    (tmp_path / "frail.py").write_text(f"""
import os
import multikernel as mk
class Frail:
    @mk.method
    def die_once(self) -> int:
        try:
            os.mkdir({str(tmp_path / "died")!r})
        except FileExistsError:
            return 7
        os._exit(3)
def main(kernel):
    kernel.serve(Frail())
""")
    frail = machine.create("frail", memory="32M", exclusive=False, restart=mk.Restart("on-failure", delay=0.01))
    frail.load(f"{tmp_path / 'frail.py'}:main")
    frail.boot()
    with machine.connect("frail", capacity="64K") as link:
        assert link.proxy(Frail, timeout=PATIENCE).die_once() == 7
    assert frail.epoch == 2
    frail.kill()
    frail.delete()
