"""The host's object: what it says of the machine, of the images, and of each instance. Written by the host alone."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any

from multikernel._core import failure, ffi, lib
from multikernel.errors import CorruptLane

from .mapping import Mapping
from .objects import reopen
from .records import ON_HANG, RESTARTS, STATES, End, ImageRecord, InstanceRecord, MachineRecord, Supervised

_BETWEEN, _MORE = ", ", "..."  # texts of a list


class MachinePage:
    """The writing side. `fd` is a read-only descriptor to hand out."""

    def __init__(self, mapping: Mapping, fd: int) -> None:
        self._mapping = mapping
        self._page = mapping.cast("struct mk_machine *")
        self.fd = fd

    @classmethod
    def create(cls, name: str) -> MachinePage:
        """Make the object for a machine called `name`. OSError when there is no memory for it (about 4 MiB)."""
        header = ffi.new("struct mk_object *")
        header.kind = lib.MK_KIND_MACHINE
        page = lib.mk_page_size()
        header.size = -(-ffi.sizeof("struct mk_machine") // page) * page
        header.owner_pid = os.getpid()
        fd = lib.mk_object_create(f"machine:{name}".encode()[:200], header[0])
        if fd < 0:
            raise failure(fd, f"making the page of machine {name!r}")
        try:
            mapping = Mapping.own(fd, header.size)
            return cls(mapping, reopen(fd))
        finally:
            os.close(fd)

    def write_machine(self, record: MachineRecord) -> None:
        """Publish the machine's record."""
        c = ffi.new("struct mk_machine_record *")
        c.name = _text(record.name, lib.MK_NAME_SIZE)
        c.host_pid, c.persistent, c.clients = record.host_pid, record.persistent, record.clients
        c.trusted = record.trusted
        c.boot_time, c.wall_time = record.boot_time_ns, record.wall_time_ns
        c.memory, c.memory_used = record.memory, record.memory_used
        _set_cpus(c.cpus, record.cpus)
        lib.mk_py_write_machine(self._open(), c)

    def write_instance(self, record: InstanceRecord) -> None:
        """Publish an instance's record, in the slot of its id (1 to 511)."""
        c = ffi.new("struct mk_instance_record *")
        c.used = 1
        c.id, c.state, c.pid, c.epoch = record.id, STATES.index(record.state), record.pid, record.epoch
        c.state_time, c.memory, c.image, c.exclusive = (
            record.state_time_ns,
            record.memory,
            record.image,
            record.exclusive,
        )
        c.due, c.memories, c.named = record.due, record.memories, record.named
        c.initrd = record.initrd
        _set_cpus(c.cpus, record.cpus)
        c.name = _text(record.name, lib.MK_NAME_SIZE)
        c.cmdline = _text(record.cmdline, lib.MK_CMDLINE_SIZE)
        c.console_tail = _tail(record.console_tail, lib.MK_CONSOLE_TAIL)
        if record.end is not None:
            c.end_reason = _text(record.end.reason, 32)
            c.end_code, c.end_signal, c.end_forced = record.end.code & 0xFFFFFFFF, record.end.signal, record.end.forced
            c.end_traceback = _tail(record.end.traceback, lib.MK_END_TEXT)
        _set_supervised(c, record.supervised)
        if lib.mk_py_write_instance(self._open(), record.id, c):
            raise ValueError(f"instance id {record.id}: there are 1 to {lib.MK_INSTANCES - 1}")

    def clear_instance(self, id_: int) -> None:
        """The instance is gone."""
        lib.mk_py_write_instance(self._open(), id_, ffi.new("struct mk_instance_record *"))

    def write_image(self, slot: int, record: ImageRecord) -> None:
        """Publish an image's record in a slot from 0 to 127."""
        c = ffi.new("struct mk_image_record *")
        c.used = 1
        c.id, c.size, c.users = record.id, record.size, record.users
        c.kind = _text(record.kind, 12)
        c.digest = record.digest.encode()[:64]
        c.signature = _text(record.signature, ffi.sizeof(c.signature))
        c.name = _tail(record.name, ffi.sizeof(c.name))
        c.imports = _list(record.imports, ffi.sizeof(c.imports))
        if lib.mk_py_write_image(self._open(), slot, c):
            raise ValueError(f"image slot {slot}: there are 0 to {lib.MK_IMAGES - 1}")

    def clear_image(self, slot: int) -> None:
        """The image is gone."""
        lib.mk_py_write_image(self._open(), slot, ffi.new("struct mk_image_record *"))

    def close(self) -> None:
        """Unmap; whoever holds the descriptor keeps the last values. Idempotent."""
        self._mapping.close()
        self._page = None
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def _open(self) -> Any:
        return self._mapping.opened(self._page)


class MachineView:
    """The reading side: from a descriptor that the host gave. The descriptor stays the caller's."""

    def __init__(self, fd: int) -> None:
        self._mapping = Mapping.peer(fd, "machine")
        self._page = self._mapping.cast("const struct mk_machine *")

    def renew(self, fd: int) -> None:
        """Look at another page from now on, a new host's; the descriptor stays the caller's.

        Whoever reads the old one in another thread does so to the end.

        Raises:
            CorruptLane: it is none. The old one stays.
        """
        mapping = Mapping.peer(fd, "machine")
        self._mapping, self._page = mapping, mapping.cast("const struct mk_machine *")

    def machine(self) -> MachineRecord:
        """The machine's record."""
        c = ffi.new("struct mk_machine_record *")
        torn = _whole(lib.mk_py_read_machine(self._open(), c))
        return MachineRecord(
            name=_string(c.name),
            host_pid=c.host_pid,
            persistent=bool(c.persistent),
            clients=c.clients,
            boot_time_ns=c.boot_time,
            wall_time_ns=c.wall_time,
            memory=c.memory,
            memory_used=c.memory_used,
            cpus=_cpus(c.cpus),
            torn=torn,
            trusted=c.trusted,
        )

    def instance(self, id_: int) -> InstanceRecord | None:
        """An instance's record; None: there is none with this id."""
        return self._instance(id_, ffi.new("struct mk_instance_record *"))

    def _instance(self, id_: int, c: Any) -> InstanceRecord | None:
        if not 0 < id_ < lib.MK_INSTANCES:
            return None
        torn = _whole(lib.mk_py_read_instance(self._open(), id_, c))
        if not c.used:
            return None
        reason = _string(c.end_reason)
        code = c.end_code - (c.end_code >> 31 << 32)  # as it was written: below zero, too
        end = End(reason, code, c.end_signal, _string(c.end_traceback), bool(c.end_forced)) if reason else None
        return InstanceRecord(
            id=id_,
            name=_string(c.name),
            state=STATES[c.state] if c.state < len(STATES) else "failed",  # as mk_string_to_state does
            pid=c.pid,
            epoch=c.epoch,
            state_time_ns=c.state_time,
            memory=c.memory,
            initrd=c.initrd,
            due=bool(c.due),
            memories=c.memories,
            named=c.named,
            image=c.image,
            exclusive=bool(c.exclusive),
            cpus=_cpus(c.cpus),
            end=end,
            cmdline=_string(c.cmdline),
            console_tail=_string(c.console_tail),
            supervised=_supervised(c),
            torn=torn,
        )

    def instances(self) -> list[InstanceRecord]:
        """All instances, by id."""
        c = ffi.new("struct mk_instance_record *")
        return [record for id_ in range(1, lib.MK_INSTANCES) if (record := self._instance(id_, c)) is not None]

    @property
    def pointer(self) -> Any:
        """The page, a const struct mk_machine *; mapped for as long as somebody has that. ValueError once closed."""
        return self._open()

    def images(self) -> list[ImageRecord]:
        """All images, by id."""
        found = []
        c = ffi.new("struct mk_image_record *")
        for slot in range(lib.MK_IMAGES):
            torn = _whole(lib.mk_py_read_image(self._open(), slot, c))
            if c.used:
                found.append(
                    ImageRecord(
                        id=c.id,
                        kind=_string(c.kind),
                        name=_string(c.name),
                        size=c.size,
                        digest=_string(c.digest),
                        users=c.users,
                        torn=torn,
                        signature=_string(c.signature),
                        imports=tuple(filter(None, _string(c.imports).split(_BETWEEN))),
                    )
                )
        return sorted(found, key=lambda image: image.id)

    def close(self) -> None:
        """Unmap. Idempotent."""
        self._mapping.close()
        self._page = None

    def _open(self) -> Any:
        return self._mapping.opened(self._page)


def _set_supervised(c: Any, it: Supervised) -> None:
    c.restart, c.restarts, c.restart_limit = RESTARTS.index(it.restart), it.restarts, it.restart_limit
    c.restart_at, c.watchdog, c.hung_since, c.claimed = (
        it.restart_at_ns,
        it.watchdog_ns,
        it.hung_since_ns,
        it.claimed_ns,
    )
    c.on_hang, c.panic, c.crash_image = ON_HANG.index(it.on_hang), it.panic, it.crash_image
    c.flags = it.core * lib.MK_INSTANCE_CORE | it.crashed * lib.MK_INSTANCE_CRASHED


def _supervised(c: Any) -> Supervised:
    return Supervised(
        restart=RESTARTS[c.restart] if c.restart < len(RESTARTS) else "never",
        restarts=c.restarts,
        restart_limit=c.restart_limit,
        restart_at_ns=c.restart_at,
        watchdog_ns=c.watchdog,
        on_hang=ON_HANG[c.on_hang] if c.on_hang < len(ON_HANG) else "report",
        hung_since_ns=c.hung_since,
        panic=c.panic,
        claimed_ns=c.claimed,
        crash_image=c.crash_image,
        core=bool(c.flags & lib.MK_INSTANCE_CORE),
        crashed=bool(c.flags & lib.MK_INSTANCE_CRASHED),
    )


def _whole(code: int) -> bool:
    """Whether a record is the one before a change that never ended, by what the read returned."""
    if code < 0:
        raise CorruptLane("the machine's page changes without a pause: its writer scribbles over it")
    return code > 0


def _text(text: str, room: int) -> bytes:
    """`text` for a C array of `room` bytes with a terminating zero; cut at the end, never inside a character."""
    return _bytes(text)[: room - 1].decode(errors="ignore").encode()


def _tail(text: str, room: int) -> bytes:
    """As `_text`, keeping the end."""
    return _bytes(text)[-(room - 1) :].decode(errors="ignore").encode()


def _list(texts: Sequence[str], room: int) -> bytes:
    """`texts` in one text for a C array of `room` bytes; those that do not fit are "..."."""
    room -= len(_BETWEEN) + len(_MORE) + 1
    kept: list[bytes] = []
    for each in texts:
        text = _bytes(each)
        room -= len(text) + len(_BETWEEN)
        if room < 0:
            kept.append(_MORE.encode())
            break
        kept.append(text)
    return _BETWEEN.encode().join(kept)


def _bytes(text: str) -> bytes:
    # A zero would end the text for readers, and what comes after it would be lost.
    return text.replace("\0", "\ufffd").encode(errors="replace")


def _string(array: Any) -> str:
    text: bytes = ffi.string(array)
    return text.decode(errors="replace")


def _set_cpus(words: Any, cpus: Iterable[int]) -> None:
    for cpu in cpus:
        if cpu >= 64 * lib.MK_CPU_WORDS:
            raise ValueError(f"cpu {cpu}: this version knows cpus 0 to {64 * lib.MK_CPU_WORDS - 1}")
        words[cpu // 64] |= 1 << cpu % 64


def _cpus(words: Any) -> tuple[int, ...]:
    return tuple(64 * i + bit for i in range(lib.MK_CPU_WORDS) if words[i] for bit in range(64) if words[i] >> bit & 1)
