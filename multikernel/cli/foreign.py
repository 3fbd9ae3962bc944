"""Options that kerf has and that mean nothing here: the parser takes them, only to say why they are refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import click


class Foreign(NamedTuple):
    """One such option."""

    flags: str  # as kerf spells it, separated by blanks
    why: str
    value: bool = True  # takes one


_DEVICES = "an instance is a process: devices stay with Linux, which it asks for them"
_TREE = "device trees cannot be read yet; give --cpus and --memory"
_URING = "an instance makes its system calls itself, there is no ring for them"
_NETWORK = "an instance shares the network of Linux, and is configured there"
_ROOTFS = "an instance sees the files of Linux; an image is a program, `multikernel load --help` says which"
_USER = "the command is run by the user who types it, whose the machine is"
_SIGNATURE = "an image is signed with an Ed25519 key over its SHA-256 digest, and trusted by that key alone"

OPTIONS = {
    "init": (
        Foreign("-i --input", _TREE),
        Foreign("-d --devices", _DEVICES),
    ),
    "create": (
        Foreign("-i --input", _TREE),
        Foreign("-d --devices", _DEVICES),
        Foreign("--cpu-affinity", "--cpu-count takes the free cpus that lie best; --cpus chooses them by number"),
        Foreign("--numa-nodes", "memory is taken where its owner runs; choose the node by --cpus"),
        Foreign("--memory-policy", "memory is taken where its owner runs; choose the node by --cpus"),
        Foreign("--memory-base", "memory is a budget here, and lies at no physical address"),
        Foreign("--enable-host-kcore", "the host has no memory image that an instance could read", value=False),
        Foreign("--uring", _URING, value=False),
        Foreign("--uring-sq-entries", _URING),
        Foreign("--uring-cq-entries", _URING),
        Foreign("--uring-shim-pages", _URING),
        Foreign("--virtio", _DEVICES),
    ),
    "load": (
        Foreign("--image", _ROOTFS),
        Foreign("--entrypoint", "the function stands in the image's name: FILE.py:FUNCTION"),
        Foreign("--rootfs-dir", _ROOTFS),
        Foreign("--ip", _NETWORK),
        Foreign("--gateway", _NETWORK),
        Foreign("--netmask", _NETWORK),
        Foreign("--nic", _NETWORK),
        Foreign("--hostname", _NETWORK),
        Foreign("--console", "each instance has one console, `multikernel console NAME` shows it"),
    ),
    "sign": (
        Foreign("--cert", _SIGNATURE),
        Foreign("--hash", _SIGNATURE),
        Foreign("--password", "keys are not encrypted here; what keeps one is who may read its file"),
    ),
    "exec": (Foreign("-u --user", _USER),),
}


class Refused(click.UsageError):
    """An option that is known and refused; the message says all there is to say."""

    final = True


def options(verb: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a command the foreign options of `verb`, hidden from its help."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for each in OPTIONS[verb]:
            command = click.option(
                *each.flags.split(),
                f"foreign_{each.flags.split()[-1].strip('-').replace('-', '_')}",
                is_flag=not each.value,
                hidden=True,
                is_eager=True,
                expose_value=False,
                callback=_refuse(each),
            )(command)
        return command

    return decorate


def _refuse(each: Foreign) -> Callable[[click.Context, click.Parameter, Any], None]:
    def refuse(ctx: click.Context, param: click.Parameter, value: Any) -> None:  # noqa: ARG001 - click's interface
        if value and not ctx.resilient_parsing:
            raise Refused(f"{each.flags.split()[-1]} means nothing here: {each.why}.", ctx)

    return refuse
