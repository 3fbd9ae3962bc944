"""What an instance logs: levels, fields, `logging`; and that no amount of printing holds it up."""

from __future__ import annotations

import pytest

from multikernel.kernel.log import syslog_level, with_fields
from tests.eventually import PATIENCE


@pytest.fixture
def lines(machine):
    """The console's lines: level and text."""
    return lambda: [(line["level"], line["text"]) for line in machine.proc.snapshot("instances/web/console")["lines"]]


@pytest.mark.parametrize(
    ("fields", "shown"),
    [
        ({}, "text"),
        ({"key": "a/b.c:1"}, "text key=a/b.c:1"),
        ({"n": 7, "x": 0.5, "on": True, "off": None}, "text n=7 x=0.5 on=true off=null"),
        ({"path": "with blank", "quote": 'a"b', "empty": ""}, 'text path="with blank" quote="a\\"b" empty=""'),
        ({"forged": "x\nlevel=0"}, 'text forged="x\\nlevel=0"'),
        ({"error": LookupError("none there")}, 'text error="none there"'),
        ({"name": "Käse"}, "text name=Käse"),
    ],
)
def test_fields_are_written_so_that_they_can_be_told_apart(fields, shown):
    assert with_fields("text", fields) == shown


def test_every_level_of_logging_has_one_of_syslogs():
    assert [syslog_level(level) for level in (60, 50, 45, 40, 30, 25, 20, 10, 0)] == [2, 2, 3, 3, 4, 6, 6, 7, 7]


def test_log_writes_a_line_with_level_and_fields(boot, lines):
    link = boot("""
        def main(kernel):
            kernel.log("began", port=8080, name="a b")
            kernel.log("bad\\n", level=3)
            for message in kernel.messages():
                try:
                    kernel.log("x", level=8)
                except ValueError as error:
                    message.reply(str(error).encode())
    """)
    assert b"level 8" in link.request(b"x", timeout=PATIENCE).payload
    assert lines() == [(6, 'began port=8080 name="a b"'), (3, "bad")]


def test_logging_works_out_of_the_box_from_any_thread(boot, lines):
    link = boot("""
        import logging, threading
        log = logging.getLogger("store")
        def main(kernel):
            for message in kernel.messages():
                log.debug("not shown: the root's level is INFO")
                log.info("opened %s", "it")
                thread = threading.Thread(target=log.warning, args=["from a thread"])
                thread.start()
                thread.join()
                logging.getLogger().setLevel(logging.DEBUG)
                log.debug("shown now")
                try:
                    {}["key"]
                except KeyError:
                    log.exception("failed")
                logging.critical("at the root")
                message.reply(b"")
    """)
    link.request(b"x", timeout=PATIENCE)
    found = lines()
    assert found[:4] == [
        (6, "store: opened it"),
        (4, "store: from a thread"),
        (7, "store: shown now"),
        (3, "store: failed"),
    ]
    assert (3, "KeyError: 'key'") in found
    assert found[-1] == (2, "root: at the root")


def test_what_an_image_sets_up_for_logging_itself_stays(boot, console):
    link = boot("""
        import logging, sys
        logging.basicConfig(stream=sys.stdout, format="mine: %(message)s", level=logging.INFO, force=True)
        def main(kernel):
            for message in kernel.messages():
                logging.info("hello")
                sys.stdout.flush()
                message.reply(b"")
        """)
    link.request(b"x", timeout=PATIENCE)
    link.request(b"x", timeout=PATIENCE)
    assert "root: hello" not in console()


def test_a_forked_child_logs_to_what_is_printed(boot, web, console):
    boot("""
        import logging, os
        def main(kernel):
            for message in kernel.messages():
                pid = os.fork()
                if pid == 0:
                    logging.warning("from the child")
                    os._exit(0)
                os.waitpid(pid, 0)
                return 0
    """).send(b"now")
    assert web.wait(timeout=PATIENCE).code == 0
    assert "root: from the child\n" in console()


def test_an_instance_that_floods_its_console_is_held_up_by_nobody(boot, machine):
    """Nobody reads, and what is kept is bounded: the last 64 KiB."""
    link = boot("""
        import logging, sys
        def main(kernel):
            for message in kernel.messages():
                for number in range(20000):
                    sys.stdout.write("x" * 500 + "\\n")
                for number in range(2000):
                    kernel.log("y" * 500)
                    logging.info("z" * 500)
                kernel.log("the end")
                message.reply(b"done")
    """)
    assert link.request(b"go", timeout=PATIENCE * 3).payload == b"done"
    text = machine.proc["instances/web/console"]
    assert len(text) <= 64 * 1024
    assert "the end\n" in text
