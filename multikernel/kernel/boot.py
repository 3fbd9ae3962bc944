"""How an instance boots: what the child that the zygote has forked does, from its first instruction to its end.

    1  confine     pinned to its cpus, and verified; killed when the zygote ends, but for a persistent machine's; closed
                   to others; a name of its own; stdin, stdout and stderr; no descriptor that it was not given, and no
                   signal handler: whoever forked it, or executed it, has seen to that
    2  map         its own status page, console and half of the host lane are made and sealed; the host gets them
    3  enter       the image is imported from the sealed bytes
    4  main        `main(kernel)`
    5  tell        how it ended, by the control channel, and the same as exit status

Pinning comes first because a thread keeps the affinity it was started with, and importing numpy starts threads.
Nothing has to be undone on the way: whatever fails, the process ends, and the system takes everything back.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import faulthandler
import inspect
import os
import socket
import sys
import threading
import time
import traceback
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TextIO

from multikernel.errors import Closed, MultikernelError
from multikernel.image import Image, initrd, load
from multikernel.ipi.hostlane import HostLaneReceiver
from multikernel.kernel import log, process, protocol
from multikernel.kernel.runtime import Kernel
from multikernel.kernel.usher import Usher
from multikernel.shm.channel import Channel
from multikernel.shm.pages import Console, MachineView, StatusPage

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

    from multikernel.kernel.manifest import Manifest
    from multikernel.kernel.panic import Panic

_HIDDEN = (
    os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep,
    "<frozen ",
    os.path.dirname(asyncio.__file__) + os.sep,
)


class _Ended(NamedTuple):
    """How `main` ended, or why it was never entered; see `multikernel.kernel.protocol`."""

    reason: str
    code: int
    traceback: str = ""


def run(manifest: Manifest, given: protocol.Descriptors, extras: dict[str, int], zygote: int) -> int:
    """Be the instance, from the fork to the end of `main`.

    Args:
        manifest: who it is.
        given: its descriptors, owned by this call.
        extras: those that its manifest names besides, likewise.
        zygote: pid of the process that forked it.

    Returns:
        The exit status. The interpreter then ends in its usual way: threads are joined, exit handlers run.
    """
    control = Channel(socket.socket(fileno=given.control))
    ended = _boot_and_run(manifest, given, extras, zygote, control)
    if ended.traceback:
        sys.stderr.write(ended.traceback)
    with contextlib.suppress(Closed):  # a host that is gone asks nothing any more
        text = protocol.tail(ended.traceback, protocol.LONGEST_TRACEBACK)
        control.send({"verb": "ended", "reason": ended.reason, "code": ended.code, "traceback": text})
    return ended.code


def _boot_and_run(
    manifest: Manifest, given: protocol.Descriptors, extras: dict[str, int], zygote: int, control: Channel
) -> _Ended:
    spawned_ns = time.monotonic_ns()
    kernel = None
    try:
        _confine(manifest, given, extras, zygote)
        pinned_ns = time.monotonic_ns()
        status = StatusPage.create(manifest.id, manifest.epoch)
        status.reached("spawned", spawned_ns)
        status.reached("pinned", pinned_ns)
        kernel = _map(manifest, given, extras, control, status)
        if manifest.takes_over:
            kernel.take_over()
        image = Image.from_description(dict(manifest.image), given.image)
        with process.importing(image.name):
            main = load.enter(image)
        if protocol.INSTANCES not in extras:  # else a new host may need it
            image.close()
        status.phase("imported")
    except BaseException as error:  # noqa: BLE001 - whatever it is, the host is told, and the process ends
        if kernel is not None:  # links that it has taken over are another one's, if that is due
            _close(kernel)
        return _Ended("boot", 1, _text(error))
    try:
        status.phase("active")
        with contextlib.suppress(Closed):  # of a host that has just been killed the machine, or the next, takes care
            control.send({"verb": "phase", "phase": "active"})
        ended = _run_main(main, kernel)
        if ended.reason in ("exception", "memory") and threading.active_count() > 1:
            faulthandler.dump_traceback(extras["crash"])  # what the others were doing; the error has its own traceback
        return ended
    finally:
        status.phase("ending")
        _close(kernel)


def _confine(manifest: Manifest, given: protocol.Descriptors, extras: dict[str, int], zygote: int) -> None:
    _pin(manifest.cpus)
    if protocol.INSTANCES not in extras:
        process.die_with(zygote)
    process.close_up()
    if manifest.core:
        process.stay_dumpable()
    process.set_name(f"mk:{manifest.name}")
    _redirect(given.console_write, extras.pop("input"))
    process.close_all_but([fd for fd in (*given, *extras.values()) if fd != given.console_write])
    faulthandler.enable(extras["crash"])  # the host's memory: it outlives us
    for variable in process.THREAD_POOLS:  # more threads than cpus of its own would only take turns
        os.environ.setdefault(variable, str(len(manifest.cpus)))
    try:
        os.chdir(manifest.directory)
    except OSError as error:
        raise MultikernelError(
            f"cannot enter {manifest.directory!r}, the directory from which the image was loaded: {error.strerror}. "
            "Load it again from one that is there."
        ) from None


def _pin(cpus: Sequence[int]) -> None:
    """Pin the process, and see that it is: on these cpus, now."""
    try:
        os.sched_setaffinity(0, cpus)
    except OSError as error:
        raise MultikernelError(
            f"cannot pin to cpus {list(cpus)}: {error.strerror}. One is offline, or outside of the cpuset, by now."
        ) from None
    allowed = os.sched_getaffinity(0)
    if allowed != set(cpus):  # the system drops cpus that the cpuset does not have, and says nothing
        raise MultikernelError(f"pinned to cpus {list(cpus)}, but the system allows {sorted(allowed)} of them only")
    cpu = process.current_cpu()
    if cpu not in allowed:
        raise MultikernelError(f"pinned to cpus {list(cpus)}, but running on cpu {cpu}")


def _redirect(console: int, typed: int) -> None:
    """Read what is typed; print to the console's pipe, a line at a time, whatever the bytes are."""
    os.dup2(typed, 0)
    os.close(typed)
    os.dup2(console, 1)
    os.dup2(console, 2)
    os.close(console)
    # New objects: the old ones know their descriptors as files, and these are a pipe.
    sys.stdin = _console(0, "r")
    sys.stdout = _console(1, "w")
    sys.stderr = _console(2, "w")


def _console(descriptor: int, mode: Literal["r", "w"]) -> TextIO:
    return open(descriptor, mode, buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)


def _map(
    manifest: Manifest, given: protocol.Descriptors, extras: dict[str, int], control: Channel, status: StatusPage
) -> Kernel:
    """Make what is the instance's own, hand it to the host, and map what is the host's."""
    console = Console.create(manifest.id, manifest.epoch)
    pipe = os.dup(given.console_read) if protocol.INSTANCES in extras else -1
    console.drain(given.console_read)
    _finish_at_exit(console)
    log.install(console)
    lane = HostLaneReceiver.create(manifest.id, manifest.epoch)
    control.send({"verb": "hello", "epoch": manifest.epoch}, [status.fd, console.fd, *lane.descriptors()])
    lane.attach(given.lane, given.bell)
    machine = MachineView(given.machine)
    os.close(given.machine)
    panic = _report(extras["panic"]) if "panic" in extras else None
    usher = None
    if protocol.INSTANCES in extras:
        brings = status.fd, console.fd, pipe
        done = protocol.INSTANCES, "input", "panic"
        others = {name: os.dup(fd) for name, fd in extras.items() if name not in done}
        others["image"] = given.image
        usher = Usher(manifest, control, machine, extras[protocol.INSTANCES], brings, others, console.write)
        usher.start()
    kernel = Kernel(manifest, control, lane, status, console, machine, usher, initrd.view(extras), panic)
    status.phase("mapped")
    return kernel


def _report(fd: int) -> Panic:
    """The report of the incarnation that died before this one; only a crash image has one."""
    from multikernel.kernel.panic import Panic

    try:
        return Panic.read(fd)
    finally:
        os.close(fd)


def _finish_at_exit(console: Console) -> None:
    """Copy the last of the pipe into the console: registered first, so done last, after every other exit handler."""
    owner = os.getpid()

    def finish() -> None:
        if os.getpid() == owner:  # a forked child has neither the thread nor the pages
            sys.stdout.flush()
            sys.stderr.flush()
            console.finish()

    atexit.register(finish)


def _run_main(main: Callable[[Kernel], Any], kernel: Kernel) -> _Ended:
    try:
        result = main(kernel)
        if inspect.iscoroutine(result):
            result = kernel.run(result)
        return _Ended("returned", _exit_status(result))
    except SystemExit as error:
        return _exited(error.code)
    except BaseException as error:  # noqa: BLE001 - KeyboardInterrupt too: it has ended, and the host is told how
        return _Ended("memory" if isinstance(error, MemoryError) else "exception", 1, _text(error))


def _exit_status(result: object) -> int:
    if result is None:
        return 0
    if isinstance(result, int) and not isinstance(result, bool) and 0 <= result <= 255:
        return result
    raise TypeError(f"main returns None or an exit status from 0 to 255, not {result!r}")


def _exited(code: object) -> _Ended:
    """What `sys.exit(code)` means, as the interpreter has it: None is 0, a text is printed and 1."""
    if code is None or isinstance(code, int):
        return _Ended("exit", int(code or 0) & 0xFF)
    return _Ended("exit", 1, f"{code}\n")


def _close(kernel: Kernel) -> None:
    try:
        kernel.close()
    except Exception:  # noqa: BLE001 - how main ended is what counts; this is said on the console
        traceback.print_exc()


def _text(error: BaseException) -> str:
    """The traceback, from the first frame of the image on. What is said in full by its message needs none."""
    trace = error.__traceback__
    while trace is not None and _is_ours(trace):
        trace = trace.tb_next
    if trace is None and not isinstance(error, (MultikernelError, SyntaxError)):
        trace = error.__traceback__
    return "".join(traceback.format_exception(type(error), error, trace))


def _is_ours(trace: TracebackType) -> bool:
    return trace.tb_frame.f_code.co_filename.startswith(_HIDDEN)
