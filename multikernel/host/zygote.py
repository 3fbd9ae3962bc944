"""The zygote: one thread, everything imported, forks instances. So a boot costs a fork and not an interpreter.

It is forked from the host before that has threads, an event loop or anything of a machine's, and so is every
instance: none inherits what another has. It is the instances' parent, because only a parent learns how a process
ended, and because a parent of one thread is what PR_SET_PDEATHSIG needs to be sound.

    host to zygote   {"verb": "spawn", "instance": id, "epoch": e, "manifest": {...}, "cold": true | false}
                         + the descriptors of `multikernel.kernel.protocol.Descriptors`
                     {"verb": "kill", "pid": p}
                         one that was spawned, and that the host cannot watch; its end is not told
    zygote to host   {"push": "up"}                                              everything is imported
                     {"push": "unprepared", "failed": error}                     what it is to import ahead cannot be
                     {"push": "spawned", "instance": id, "epoch": e, "pid": p} + [pidfd]
                     {"push": "unspawned", "instance": id, "epoch": e, "failed": error}
                     {"push": "gone", "instance": id, "epoch": e, "code": c, "signal": s, "core": true | false}
                         it has ended and is reaped; exit status c, or killed by signal s, with a core file or without

The end of file of the channel is the end of the host, however it came: the zygote kills what it has started,
removes the run directory and ends. Should the zygote be killed, the system kills the instances, and the host ends.
The zygote shares the lock of the run directory, so the machine's name is taken until its last instance is gone.

In a persistent machine the end of file is a host that was killed, unless it has said "end" before: then the zygote
starts the next one, with a new channel, and tells that what it knows and what it keeps. It goes on itself as before,
and so do the instances, which the system does not kill at its end there.

    host to zygote   {"verb": "keep", "instance": id, "names": [..]} + [a descriptor for each name]
                         for the next host, in place of those kept before; none: forget
                     {"verb": "hold", "key": text, "document": {..}} + [descriptors]
                         the same for what is no instance, by a key of its own
                     {"verb": "serving"}                                         the next host has taken over
                     {"verb": "end"}                                             the machine ends
    zygote to host   {"push": "inherit", "living": [[instance, epoch, pid]..],
                      "ended": [[instance, epoch, code, signal, core]..]}
                     {"push": "kept", "instance": id, "names": [..]} + [a descriptor for each name]
                         of each instance
                     {"push": "held", "key": text, "document": {..}} + [descriptors]
                         of each of the others; then "up"

When nothing is asked for one more child is forked ahead, which waits for what it is to be (`multikernel.host.spare`).

An instance leads a session, and so a process group, of its own: of a group whose parent ends the system ends those that
are stopped, but not over the border of a session. What it started and left in that group is killed with it; what left
the group too (setsid) goes with the machine at the latest.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import resource
import select
import signal
import socket
import sys
import traceback
from typing import TYPE_CHECKING

from multikernel.errors import Closed, MultikernelError, to_wire
from multikernel.host import cold, interpreter, log, spare
from multikernel.host import preload as preload_
from multikernel.host.spare import Birth, Spare, birth_of
from multikernel.kernel import boot, native, process
from multikernel.kernel.rehearsal import rehearse
from multikernel.shm.channel import Channel, Document, ProtocolError, close_all

if TYPE_CHECKING:
    from collections.abc import Sequence

    from multikernel.host.rundir import RunDir
    from multikernel.kernel.manifest import Manifest


_FUTILE = 5
"""Hosts that end before they have taken over, one after the other: after so many no more are started."""


def main(channel: Channel, rundir: RunDir, *, persistent: bool, preload: Sequence[str]) -> int:
    """Be the zygote of the host at the other end of `channel`; in a forked child, be the instance.

    Args:
        channel: to the host; nobody else may hold its other end, or its end of file would not come.
        rundir: the machine's, claimed by the host; this is a copy.
        persistent: whether the machine outlives its host.
        preload: modules to import ahead.

    Returns:
        The exit status of this process.
    """
    process.set_name("mk-zygote")
    if os.getsid(0) != os.getpid():  # one that was started later has a session of its own, and that a group
        os.setpgid(0, 0)  # whatever is sent to the host's group, one is left to clear up
    process.close_up()
    process.adopt_orphans()
    process.register_for_barriers()
    try:
        preload_.load(preload)
        _rehearse()
    except MultikernelError as error:
        with contextlib.suppress(Closed):
            channel.send({"push": "unprepared", "failed": to_wire(error)})
        return 1
    process.default_signals()  # what it has from the host, or what is preloaded has made, is no child's
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # its end is the host's to say
        signal.signal(number, signal.SIG_IGN)
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    if persistent:  # what it keeps are some descriptors an instance; the instances have the usual limit
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit[1], limit[1]))
    zygote = _Zygote(channel, rundir, persistent=persistent)
    # What exists by now lives as long as the process: a collection in an instance need not look at it, and so does
    # not copy its pages.
    sys.path_importer_cache.clear()  # an instance does it too, and would give back each of them by itself
    gc.collect()
    gc.freeze()
    gc.disable()
    log.redirect(rundir)
    with contextlib.suppress(Closed):  # a host that was killed meanwhile: `serve` finds what it has left, and its end
        channel.send({"push": "up"})
    birth = zygote.serve()
    if birth is not None:
        resource.setrlimit(resource.RLIMIT_NOFILE, limit)
        gc.enable()
        return boot.run(*birth)
    if zygote.gave_up:  # the instances go on, and the next client tries again
        return 1
    process.kill_descendants(spare=[zygote.host])  # which may be a child of ours, and ends by itself
    with contextlib.suppress(OSError, MultikernelError):
        rundir.remove()
    return 0


def _rehearse() -> None:
    """What is done once and stays, caches and the order of free memory, is so before the first fork: for all children.

    Raises:
        MultikernelError: there is no memory, or no descriptor.
    """
    try:
        for _ in rehearse():
            pass
    except OSError as error:
        raise MultikernelError(f"the zygote, which starts instances, cannot do so: {error}") from None


class _Zygote:
    """The loop: requests of the host, and ends of children."""

    def __init__(self, channel: Channel, rundir: RunDir, *, persistent: bool) -> None:
        self.gave_up = False
        """Whether hosts that were started in vain were too many."""
        self.host = 0
        """Pid of the host, if this zygote has started it."""
        self._channel = channel
        self._rundir = rundir
        self._persistent = persistent
        self._futile = 0
        self._instances: dict[int, tuple[int, int]] = {}  # by pid: instance id and epoch
        self._ends: dict[int, tuple[int, int, int, bool]] = {}  # by instance: epoch, code, signal, core of its newest
        self._spare: Spare | None = None
        self._told: Spare | None = None  # the last one, until it is on the cpus of the instance that it is now
        self._spare_due = True  # whether the next one is to be forked, when nobody asks for anything
        self._kept: dict[int, tuple[list[str], list[int]]] = {}  # by instance id: names and descriptors
        self._held: dict[str, tuple[Document, list[int]]] = {}  # by key
        self._ended = _bell_of_children()
        self._poll = select.poll()
        self._poll.register(channel, select.POLLIN)
        self._poll.register(self._ended, select.POLLIN)

    def serve(self) -> Birth | None:
        """Serve until the machine ends: None. In a forked child it returns with what that is to be."""
        while True:
            events = self._poll.poll(0 if self._spare_due else None)
            if not events and (birth := self._fork_spare()) is not None:
                return birth
            for fd, _ in events:
                if fd == self._ended.fileno():
                    self._reap()
                    continue
                if self._told is not None and fd == self._told.fileno():
                    self._let_go(self._told)
                    continue
                if fd != self._channel.fileno():
                    continue  # of a host that was replaced in this very round
                try:
                    birth = self._take_request()
                except Closed:
                    if not self._persistent or not self._start_host():
                        return None
                    continue
                if birth is not None:
                    return birth

    def _close(self) -> None:
        """Close what is the zygote's, in a forked child.

        By their objects, and now: collected later, those would close the numbers again, whosesoever they are by then.
        """
        self._channel.close()
        self._ended.close()
        self._rundir.close()
        for each in filter(None, (self._spare, self._told)):
            each.close()
        for _, fds in (*self._kept.values(), *self._held.values()):
            close_all(fds)

    def _fork_spare(self) -> Birth | None:
        """Nothing is asked for now: have a child ready for the next boot. In the child, as `serve`.

        It is forked beside the boot that has used the last one, as soon as that goes on on cpus of its own, so that
        boots one right after the other have one each.
        """
        self._spare_due = False
        try:
            made = spare.fork(self._close)
        except OSError as error:  # the next boot forks for itself, and says what is missing
            log.write(f"no spare: {error}")
            return None
        if isinstance(made, Birth):
            return made
        self._spare = made
        return None

    def _take_request(self) -> Birth | None:
        """Do what the host asks for next. Raises Closed when it is gone, or says that the machine ends."""
        try:
            received = self._channel.receive(timeout=0)
        except ProtocolError:
            traceback.print_exc()
            return None
        if received is None:
            return None
        request, fds = received
        verb = request.get("verb")
        if verb == "keep":
            self._keep(request, fds)
            return None
        if verb == "hold":
            self._hold(request, fds)
            return None
        if verb == "serving":
            self._futile = 0
            return None
        if verb == "kill":
            if self._instances.pop(request["pid"], None):  # else it has ended, and its pid may be another's
                os.kill(request["pid"], signal.SIGKILL)
            return None
        if verb == "end":
            self._persistent = False
            raise Closed("the machine ends")
        try:
            birth = self._spawn(request, _given(fds))
        except (OSError, KeyError, ValueError, MultikernelError) as error:
            birth = None
            self._say("unspawned", request.get("instance"), request.get("epoch"), failed=to_wire(_no_process(error)))
        if birth is None:
            for fd in fds:
                os.close(fd)
        return birth

    def _keep(self, request: Document, fds: list[int]) -> None:
        """Keep descriptors of an instance, in place of those kept before."""
        instance, names = request["instance"], request["names"]
        _, before = self._kept.pop(instance, ([], []))
        close_all(before)
        if not names:
            self._ends.pop(instance, None)
        elif len(fds) == len(names):
            self._kept[instance] = names, fds
        else:
            log.write(f"the next host will not have {', '.join(names)} of instance {instance}: no descriptors left")

    def _hold(self, request: Document, fds: list[int]) -> None:
        """Hold descriptors of something, in place of those held before; none: let go."""
        _, before = self._held.pop(request["key"], ({}, []))
        close_all(before)
        if fds:
            self._held[request["key"]] = request["document"], fds
        elif request["document"]:
            log.write(f"the next host will not have {request['key']}: no descriptors left")

    def _start_host(self) -> bool:
        """The host was killed: start the next one. False: that has been tried in vain too often."""
        if self._futile == _FUTILE:
            log.write(f"{_FUTILE} hosts in a row have ended before they had taken over; no more are started")
            self.gave_up = True
            return False
        self._futile += 1
        ours, theirs = Channel.pair()
        try:
            self.host = interpreter.start("heir", [theirs.fileno(), self._rundir.lock], 2)
        except (OSError, MultikernelError) as error:
            log.write(f"cannot start the next host: {error}")  # theirs is closed here, so the next look tries again
        finally:
            theirs.close()
        self._poll.unregister(self._channel)
        self._channel.close()
        self._channel = ours
        self._poll.register(ours, select.POLLIN)
        with contextlib.suppress(Closed):
            living = [[*known, pid] for pid, known in self._instances.items()]
            ended = [[instance, *end] for instance, end in self._ends.items()]
            ours.send({"push": "inherit", "living": living, "ended": ended})
            for instance, (names, fds) in self._kept.items():
                ours.send({"push": "kept", "instance": instance, "names": names}, fds)
            for key, (document, fds) in self._held.items():
                ours.send({"push": "held", "key": key, "document": document}, fds)
            ours.send({"push": "up"})
        return True

    def _spawn(self, request: Document, fds: list[int]) -> Birth | None:
        birth = birth_of(request, fds, os.getpid())
        if native.is_native(birth.manifest):
            pid = native.spawn(*birth[:3])
        elif request["cold"]:
            pid = cold.spawn(*birth[:3])
        else:
            pid = self._told_spare(request, fds) or os.fork()
        if pid == 0:
            os.setsid()
            self._close()
            process.default_signals()
            return birth
        try:
            self._announce(birth.manifest, pid)
        except OSError:  # the host does not know it, so it must not live
            os.kill(pid, signal.SIGKILL)
            raise
        self._instances[pid] = birth.manifest.id, birth.manifest.epoch
        return None

    def _told_spare(self, request: Document, fds: list[int]) -> int:
        """The pid of the spare, which is the instance from now on; 0: there is none."""
        spare_, self._spare = self._spare, None
        if spare_ is None:
            self._spare_due = self._told is None
            return 0
        self._told = spare_
        self._poll.register(spare_, select.POLLIN)
        if spare_.tell(request, fds):
            return spare_.pid
        self._let_go(spare_)
        return 0

    def _let_go(self, told: Spare) -> None:
        """The spare that was told is on its way, or has ended: it is time for the next one."""
        self._poll.unregister(told)
        told.close()
        self._told = None
        self._spare_due = True

    def _announce(self, manifest: Manifest, pid: int) -> None:
        pidfd = os.pidfd_open(pid)  # not reaped yet, so it is this child's
        try:
            self._say("spawned", manifest.id, manifest.epoch, [pidfd], pid=pid)
        finally:
            os.close(pidfd)

    def _reap(self) -> None:
        """Take every child that has ended: instances, and orphans of theirs that were adopted."""
        self._ended.recv(4096)
        while ended := _ended_child():
            # Not reaped yet, so the pid, and with it the group, cannot be another's by now.
            known = self._instances.pop(ended.si_pid, None)
            if self._spare is not None and self._spare.pid == ended.si_pid:
                self._spare.close()
                self._spare = None  # the next boot forks for itself, and has another one made
            if known:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(ended.si_pid, signal.SIGKILL)
            os.waitpid(ended.si_pid, 0)
            if known:
                exited = ended.si_code == os.CLD_EXITED
                code, number = (ended.si_status, 0) if exited else (0, ended.si_status)
                core = ended.si_code == os.CLD_DUMPED
                self._ends[known[0]] = known[1], code, number, core
                self._say("gone", *known, code=code, signal=number, core=core)

    def _say(
        self, push: str, instance: int | None, epoch: int | None, fds: list[int] | None = None, **more: object
    ) -> None:
        with contextlib.suppress(Closed):  # the next look at the channel finds that out, too
            self._channel.send({"push": push, "instance": instance, "epoch": epoch, **more}, fds or ())


def _given(fds: list[int]) -> list[int]:
    """Refuse what came without its descriptors. OSError says why."""
    if not fds:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    return fds


def _bell_of_children() -> socket.socket:
    """A socket that is readable after a child has ended, so that one poll waits for that too."""
    bell, ringer = socket.socketpair()
    bell.setblocking(False)
    ringer.setblocking(False)
    signal.set_wakeup_fd(ringer.detach(), warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)  # with none of Python's, nothing would be written
    return bell


def _ended_child() -> os.waitid_result | None:
    try:
        return os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return None


def _no_process(error: Exception) -> MultikernelError:
    if isinstance(error, MultikernelError):
        return error
    if isinstance(error, OSError):
        return MultikernelError(
            f"the system gives no process for the instance: {error.strerror}. `ulimit -u` and `ulimit -n` show limits."
        )
    return MultikernelError(f"the zygote refused a request: {error}")
