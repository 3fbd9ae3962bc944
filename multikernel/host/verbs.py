"""What a client may ask of a host: the verbs of the control connection.

A request is `{"verb": ..., "id": n, ...}`, its answer `{"answer": n, "ok": {...}}` or `{"answer": n, "failed": wire
error}`. Answers come as they are ready, not in order. "name" and "instance" together say which instance is meant: the
one of that name and, unless it is null, of that id. `+ [...]` are descriptors.

    join      {"protocol": p}                  -> {"name", "pid", "client", "persistent", "protocol"} + [machine]
                  the machine object, read-only; refused if the client speaks another version of the protocol
    watch     {}                                             -> {}
                  from now on the pushes below come; those of all instances that there are before the answer
    events    {}                                             -> {}
                  from now on the pushes of state changes come; on a connection that is for nothing else
    create    {"name", "cpus": [..] | null, "memory": bytes, "policy": {..}, "exclusive", "instance": id | null}
                  -> {"instance": id}; the policy is `Policy.to_json`
    delete    {"name", "instance"}                           -> {}
    load      {"name", "instance", "image": {..}, "cmdline", "directory", "initrd": "file" | "directory" | null,
                  "signature": text | null, "panic", "dry_run"}
                  + [image], or [image, initrd]              -> {}
    check     {"name", "memory": bytes, "image", "cmdline", "initrd", "signature"}
                  + [image], or [image, initrd]              -> {}
                  whether an instance that is not made yet could load it
    unload    {"name", "instance"}                           -> {}
    boot      {"name", "instance", "until": "active" | "ready", "timeout": s, "cold"}        -> {"pid", "epoch"}
    reboot    {"name", "instance", "until", "timeout": s}    -> {"pid", "epoch"}
    halt      {"name", "instance", "timeout": s, "force"}    -> {"end": {..}}
    kill      {"name", "instance"}                           -> {"end": {..}}
    wait      {"name", "instance", "timeout": s | null}      -> {"end": {..}}
    attach    {"name", "instance"}                           -> {} + [the writing end of what it reads as stdin]
                  one client at a time, until `detach`, its end, or the incarnation's
    detach    {"name", "instance"}                           -> {}
    connect   {"to": name, "capacity": bytes, "timeout": s} + [producer, consumer]
                  -> {"link", "peer", "peer_name", "peer_epoch"} + [producer, consumer, socket end, pidfd]
    shutdown  {"timeout": s}                                 -> {}
                  halts the instances, kills what has not halted in time; the end of file comes when all is gone
    adopt     an instance's, see `multikernel.kernel.protocol`
    census    {}                                             -> {"descriptors", "objects", "threads", "zygote", ...}
                  what the host itself holds: open descriptors, mapped memory objects, threads; the pid of its zygote, 0
                  while none is up; and as "requests" how many of this client it has not answered yet
    seen      {"instance": id}                               not answered: the last push about it was taken
    unlink    {"link": l}                                    not answered: the client has closed a link
    facing    {"link": l, "epoch": e}                        not answered: which incarnation of the peer it has to do
                  with; a newer one's objects are pushed

    {"push": "incarnation", "id": instance, "epoch": e, "panic": p} + [status, console] and, if p is not 0, + [report]
                  its newest pages, and the panic report of epoch p, which is kept
    {"push": "event", "event": {..}}                         a state change, `multikernel.kernel.event.Event`
    {"push": "gone", "id": instance, "panic": p}             no pages: it was deleted, or none have come
    {"push": "successor", "link": l, "epoch": e} + [producer, consumer, pidfd]
                  a link goes on with these objects of a new incarnation of the peer; without the pidfd if that has
                  ended by now, and is due again

The program that starts a host sends `start` instead of `join`, before any of these; see `multikernel.host.__main__`.
It has the machine once it watches: if it goes before that, a persistent machine ends too.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from typing import TYPE_CHECKING, TypeAlias

from multikernel.errors import MultikernelError
from multikernel.host import loading
from multikernel.host.policy import Policy
from multikernel.host.request import check_protocol
from multikernel.host.states import check_step, refused

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from multikernel.host.answers import Answer
    from multikernel.host.client import Client
    from multikernel.host.incarnation import Until
    from multikernel.host.instance import Instance
    from multikernel.host.kernel import HostKernel
    from multikernel.host.request import Request
    from multikernel.shm.pages import End

Verb: TypeAlias = "Callable[[HostKernel, Client, Request], Awaitable[Answer]]"


async def join(host: HostKernel, client: Client, request: Request) -> Answer:
    """Let a client see the machine."""
    check_protocol(request)
    return host.describe(client), [os.dup(host.page.fd)]


async def watch(host: HostKernel, client: Client, _request: Request) -> Answer:
    """Let a client see the instances. Their pages come first, so that who has the answer has them all."""
    host.show_all(client)
    return {}, []


async def events(host: HostKernel, client: Client, _request: Request) -> Answer:
    """Tell a client of state changes."""
    host.announcer.add(client)
    host.publish()
    return {}, []


async def create(host: HostKernel, _client: Client, request: Request) -> Answer:
    """Make an instance."""
    host.check_open()
    instance = host.registry.create(
        request.text("name"),
        request.integers_or_none("cpus"),
        request.integer("memory"),
        Policy.from_json(request.object("policy")),
        exclusive=request.flag("exclusive"),
        instance_id=request.integer_or_none("instance"),
    )
    return {"instance": instance.id}, []


async def delete(host: HostKernel, _client: Client, request: Request) -> Answer:
    """Give it back."""
    instance = _instance(host, request)
    async with instance.turn():
        host.registry.delete(instance)
        host.lifecycle.stand_down(instance)
    return {}, []


async def load(host: HostKernel, _client: Client, request: Request) -> Answer:
    """Give it an image; or only see whether it could have it."""
    instance = _instance(host, request)
    cmdline, directory, panic = request.text("cmdline"), request.text("directory"), request.flag("panic")
    dry_run = request.flag("dry_run")
    async with instance.turn():
        check_step(instance.name, instance.state, "load --panic" if panic else "load")
        received = await loading.receive(request, host.trust)
        try:
            if dry_run:
                host.registry.check_load(instance, received, cmdline, panic=panic)
            elif panic:
                host.registry.load_crash_image(instance, received, cmdline, directory)
            else:
                host.registry.load(instance, received, cmdline, directory)
        except BaseException:
            received.close()
            raise
        if dry_run:
            received.close()
        elif not panic:
            host.lifecycle.stand_down(instance)
    return {}, []


async def check(host: HostKernel, _client: Client, request: Request) -> Answer:
    """See whether an instance that would be made could be given an image."""
    name, memory, cmdline = request.text("name"), request.integer("memory"), request.text("cmdline")
    received = await loading.receive(request, host.trust)
    with contextlib.closing(received):
        host.registry.check_new(name, memory, received, cmdline)
    return {}, []


async def unload(host: HostKernel, _client: Client, request: Request) -> Answer:
    """Take the image away."""
    instance = _instance(host, request)
    async with instance.turn():
        host.registry.unload(instance)
        host.lifecycle.stand_down(instance)
    return {}, []


async def boot(host: HostKernel, _client: Client, request: Request) -> Answer:
    """Start it."""
    within, cold = request.seconds("timeout"), request.flag("cold")
    run = await host.lifecycle.boot(_instance(host, request), _until(request), within, cold=cold)
    return {"pid": run.pid, "epoch": run.epoch}, []


async def reboot(host: HostKernel, _client: Client, request: Request) -> Answer:
    """Have a new incarnation take over."""
    run = await host.lifecycle.reboot(_instance(host, request), _until(request), request.seconds("timeout"))
    return {"pid": run.pid, "epoch": run.epoch}, []


async def halt(host: HostKernel, _client: Client, request: Request) -> Answer:
    """Ask it to finish."""
    instance = _instance(host, request)
    end = await host.lifecycle.halt(instance, request.seconds("timeout"), force=request.flag("force"))
    return _end(end)


async def kill(host: HostKernel, _client: Client, request: Request) -> Answer:
    """End it."""
    return _end(await host.lifecycle.kill(_instance(host, request)))


async def wait(host: HostKernel, _client: Client, request: Request) -> Answer:
    """Wait for its end."""
    return _end(await host.lifecycle.wait(_instance(host, request), request.seconds_or_none("timeout")))


async def attach(host: HostKernel, client: Client, request: Request) -> Answer:
    """Let a client write what the instance reads."""
    instance = _instance(host, request)
    if instance.run is None:
        raise refused(instance.name, instance.state, "attach to")
    return {}, instance.run.input.attach(client, instance.name)


async def detach(host: HostKernel, client: Client, request: Request) -> Answer:
    """The client writes no more."""
    instance = _instance(host, request)
    if instance.run is not None:
        instance.run.input.detach(client)
    return {}, []


async def connect(host: HostKernel, client: Client, request: Request) -> Answer:
    """Link the client to an instance."""
    return await host.broker.serve(client.party(), request)


async def shutdown(host: HostKernel, _client: Client, request: Request) -> Answer:
    """End the machine."""
    await host.shut_down(request.seconds("timeout"))
    return {}, []


async def adopt(host: HostKernel, client: Client, request: Request) -> Answer:
    """Be the new host of an instance that has lost its own."""
    return await host.takeover.adopt(client, request)


async def census(host: HostKernel, client: Client, _request: Request) -> Answer:
    """Say what the host holds; and how many requests of the client it has not answered, this one among them."""
    return {**_holdings(), "zygote": host.nursery.pid if host.nursery.is_up else 0, "requests": client.busy}, []


VERBS: dict[str, Verb] = {
    verb.__name__: verb
    for verb in (
        join,
        watch,
        events,
        create,
        delete,
        load,
        check,
        unload,
        boot,
        reboot,
        halt,
        kill,
        wait,
        attach,
        detach,
        connect,
        shutdown,
        adopt,
        census,
    )
}


def _holdings() -> dict[str, int]:
    with open("/proc/self/maps", encoding="utf-8", errors="replace") as maps:
        objects = sum("/memfd:" in line for line in maps)
    return {
        "descriptors": len(os.listdir("/proc/self/fd")) - 1,  # less the one that lists them
        "objects": objects,
        "threads": len(os.listdir("/proc/self/task")),
    }


def _instance(host: HostKernel, request: Request) -> Instance:
    return host.registry.find(request.text("name"), request.integer_or_none("instance"))


def _until(request: Request) -> Until:
    match request.text("until"):
        case "active" | "ready" as until:
            return until
        case other:
            raise MultikernelError(f"{request.verb}: until is 'active' or 'ready', not {other!r}")


def _end(end: End) -> Answer:
    return {"end": dataclasses.asdict(end)}, []
