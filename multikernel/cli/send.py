"""`multikernel send`: a message to an instance, and its reply."""

from __future__ import annotations

import base64
import os
import sys
from typing import TYPE_CHECKING, Any

import click

from . import complete, options, output, target

if TYPE_CHECKING:
    from multikernel.ipi.messages import Message

_SMALLEST_LINK = 64 * 1024  # bytes; one message does not need more


def _number(text: str) -> int:
    """A number of 16 bits, decimal or hexadecimal."""
    try:
        number = int(text, 0)
    except ValueError:
        number = -1
    if not 0 <= number <= 0xFFFF:
        raise ValueError(f"{text!r} is not a number from 0 to 0xffff")
    return number


_sixteen_bits = options.checked(_number)


@click.command(
    epilog="\b\nExample:\n  multikernel send web hello --request\n  multikernel send web - --type 0x4000 < message.bin"
)
@click.argument("name", shell_complete=complete.instances)
@click.argument("payload", default="")
@click.option(
    "--type", "kind", callback=_sixteen_bits, default="0x4000", show_default=True, metavar="N", help="Of the message."
)
@click.option("--subtype", callback=_sixteen_bits, default="0", show_default=True, metavar="N", help="Of the message.")
@click.option("--request", is_flag=True, help="Wait for the reply, and print it.")
@options.timeout("How long each step may take: the link, room for the message, the reply.")
@options.machine_name
@options.dry_run
@options.as_json
@options.verbose
def send(
    name: str,
    payload: str,
    kind: int,
    subtype: int,
    request: bool,
    timeout: float,
    machine_name: str | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Send a message to an instance.

    PAYLOAD is text; - stands for what comes on stdin; it is empty if left out. The instance must be active.
    """
    content = sys.stdin.buffer.read() if payload == "-" else os.fsencode(payload)
    with target.machine(machine_name) as machine:
        instance = machine[name]
        sent = {"machine": machine.name, "instance": instance.name, "bytes": len(content), "dry_run": dry_run}
        reply = None
        if dry_run:
            target.check_active(instance, "connect to")
        else:
            capacity = max(_SMALLEST_LINK, 1 << (4 * len(content)).bit_length())
            with (
                output.patience(f"waiting for {name}, for up to {timeout:g} s"),
                machine.connect(name, capacity=capacity, timeout=timeout) as link,
            ):
                if request:
                    reply = link.request(content, type=kind, subtype=subtype, timeout=timeout)
                else:
                    link.send(content, type=kind, subtype=subtype, timeout=timeout)
    if as_json:
        output.document({**sent, "reply": None if reply is None else _document(reply)})
    elif reply is not None:
        output.data(bytes(reply.payload))
    else:
        output.talk(f"{'would send' if dry_run else 'sent'} {len(content)} bytes to {name}")


def _document(message: Message) -> dict[str, Any]:
    """A message as plain data: its payload as text if it is text, else in base64."""
    content = bytes(message.payload)
    try:
        payload, encoding = content.decode(), "utf-8"
    except UnicodeDecodeError:
        payload, encoding = base64.b64encode(content).decode(), "base64"
    return {
        "type": message.type,
        "subtype": message.subtype,
        "sender": message.sender,
        "payload": payload,
        "encoding": encoding,
    }
