"""`multikernel run`: create, load and start in one, and stay until the instance has ended."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

import click

from . import complete, describe, images, options, output, plan, target
from .follow import Follower

if TYPE_CHECKING:
    from multikernel.machine import Instance, Machine
    from multikernel.shm.records import End

_ENDING = (signal.SIGTERM, signal.SIGHUP)
_HALT_SECONDS = 0.5  # that an instance gets to finish after a Ctrl-C


@click.command(
    epilog="\b\nExample:\n"
    "  multikernel run server.py:main\n"
    "  multikernel run web server.py --cpus 1 --cmdline port=8080 --detach"
)
@options.not_both("remove", "detach", "--rm is for the end, and --detach does not wait for it.")
@click.argument("words", nargs=-1, required=True, metavar="[NAME] IMAGE", shell_complete=complete.files)
@options.cpus("Its cpus. Default: one that is free.")
@options.memory("Its memory.", default="64M")
@options.cmdline()
@options.initrd()
@click.option("-d", "--detach", is_flag=True, help="Return when it is active, and let it run on.")
@click.option("--rm", "remove", is_flag=True, help="Delete the instance when it has ended.")
@options.timeout("How long its boot may take.")
@options.machine_name
@options.dry_run
@options.as_json
@options.verbose
def run(
    words: tuple[str, ...],
    cpus: tuple[int, ...] | None,
    memory: int,
    cmdline: str,
    initrd: str | None,
    detach: bool,
    remove: bool,
    timeout: float,
    machine_name: str | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Boot an image and show its console.

    IMAGE (as `multikernel load --help` has them) becomes a new instance; its console is shown until it ends.
    Without a running machine one is made that ends with this command. NAME is the image's, if none is given. Exit
    status: the instance's own, or 128 and the number of the signal that ended it. Ctrl-C halts it.
    """
    name, image = _name_and_image(words)
    alone = target.none_runs(machine_name)
    if alone and detach:
        raise target.NotRunning
    if dry_run:
        output.done(
            _planned(machine_name, alone, name, cpus, memory, image, cmdline, initrd),
            as_json,
            f"would run {image} as {name}",
        )
        return
    with contextlib.ExitStack() as stack:
        machine = stack.enter_context(_own() if alone else target.machine(machine_name))
        stack.enter_context(_terminated_like_interrupted())
        instance = machine.create(name, cpus=cpus, memory=memory)
        _start(machine, instance, image, cmdline, initrd, timeout)
        output.detail(f"{name} is active, pid {instance.pid}")
        if detach:
            output.done(describe.outcome(instance, dry_run=False), as_json, f"{name} runs, {describe.now(instance)}")
            return
        if remove:
            stack.callback(_delete, instance)
        end = _stay(instance, to_stderr=as_json)
        status = describe.exit_status(end)
        outcome = describe.outcome(instance, end=describe.end(end), exit_status=status, dry_run=False)
    if as_json:
        output.document(outcome)
    elif end.signal:
        output.talk(f"{name} ended: {describe.end_text(end)}")
    click.get_current_context().exit(status)


def _name_and_image(words: tuple[str, ...]) -> tuple[str, str]:
    from multikernel.resources.names import check_name

    if len(words) > 2:
        raise click.UsageError(f"one NAME and one IMAGE are enough; what is {words[2]!r}?")
    image = words[-1]
    name = words[0] if len(words) == 2 else images.name_of(image)
    try:
        return check_name(name), image
    except ValueError as error:
        raise click.UsageError(str(error)) from None


def _planned(
    machine_name: str | None,
    alone: bool,
    name: str,
    cpus: tuple[int, ...] | None,
    memory: int,
    image: str,
    cmdline: str,
    initrd: str | None,
) -> dict[str, Any]:
    """What would be, checked as far as it can be without doing it."""
    if alone:
        images.check(None, name, image, cmdline, initrd, memory)
        return plan.document(None, name, plan.cpus_of_host(cpus), memory, exclusive=True, number=None)
    with target.machine(machine_name) as machine:
        chosen = plan.cpus(machine, name, cpus, 1, memory, exclusive=True, number=None)
        images.check(machine, name, image, cmdline, initrd, memory)
        return plan.document(machine.name, name, chosen, memory, exclusive=True, number=None)


@contextlib.contextmanager
def _own() -> Iterator[Machine]:
    """A machine that ends with this command."""
    from multikernel import Machine

    with Machine() as machine:
        output.detail(f"made machine {machine.name!r}, host pid {machine.pid}")
        yield machine


@contextlib.contextmanager
def _terminated_like_interrupted() -> Iterator[None]:
    """Let a SIGTERM, or the end of the terminal, end this command as a Ctrl-C does: by way of the instance's end."""

    def leave(number: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG001 - signal's interface
        raise SystemExit(128 + number)

    numbers = [each for each in _ENDING if signal.getsignal(each) != signal.SIG_IGN]  # as nohup has it
    before = [(number, signal.signal(number, leave)) for number in numbers]
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, handler)


def _start(machine: Machine, instance: Instance, image: str, cmdline: str, initrd: str | None, timeout: float) -> None:
    """Load and boot, or leave nothing of the instance."""
    from multikernel.errors import MultikernelError

    try:
        images.load(instance, image, cmdline, initrd)
        with output.patience(f"booting {instance.name}, for up to {timeout:g} s"):
            instance.boot(timeout=timeout)
    except BaseException:
        with contextlib.suppress(MultikernelError):  # the machine is gone: then so is the instance
            _end(instance)
            machine.delete(instance.name)
        raise


def _delete(instance: Instance) -> None:
    """Delete it, unless somebody has, or has ended the machine."""
    from multikernel.errors import Closed, NotFound

    with contextlib.suppress(Closed, NotFound):
        instance.delete()


def _stay(instance: Instance, *, to_stderr: bool) -> End:
    """Show the console until the end. Whatever ends this command before that ends the instance."""
    from multikernel.errors import Closed, MultikernelError

    follower = Follower(instance, lambda text: click.echo(text, nl=False, err=to_stderr))
    try:
        return follower.until_end()
    except Closed:  # somebody has shut the machine down
        raise
    except BaseException:
        with contextlib.suppress(OSError):  # nobody reads: perhaps that was why
            output.talk(f"halting {instance.name}; Ctrl-C again kills it")
        with contextlib.suppress(MultikernelError, OSError):
            _end(instance, halt=True)
            follower.finish()
        raise


def _end(instance: Instance, *, halt: bool = False) -> None:
    """End what runs of the instance, if anything does."""
    from multikernel.errors import StateError

    with contextlib.suppress(StateError):
        if halt:
            with contextlib.suppress(KeyboardInterrupt):
                instance.halt(timeout=_HALT_SECONDS)
                return
        instance.kill()
