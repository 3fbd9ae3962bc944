"""The group of all commands: which there are, how they are found, and what becomes of their errors.

A command is imported when it is run (or when help lists them all), and imports what it needs when it needs it: so
`--help` and completion load neither numpy nor rich nor the machine client. Errors become one line and an exit status
here, and nowhere else.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import select
import sys
from collections.abc import Sequence
from typing import Any

import click

from . import output

PROGRAM = "multikernel"
COMPLETE = "_MULTIKERNEL_COMPLETE"

# The function that is the command, by module; in the order in which one needs them.
COMMANDS = {
    "run": "run:run",
    "init": "init:init",
    "create": "create:create",
    "load": "load:load",
    "start": "start:start",
    "boot": "start:boot",
    "reboot": "reboot:reboot",
    "exec": "execute:execute",
    "show": "show:show",
    "console": "console:console",
    "dump": "dump:dump",
    "send": "send:send",
    "ls": "view:ls",
    "cat": "view:cat",
    "sign": "sign:sign",
    "halt": "halt:halt",
    "kill": "halt:kill",
    "wait": "wait:wait",
    "unload": "remove:unload",
    "delete": "remove:delete",
    "shutdown": "shutdown:shutdown",
    "bench": "bench:bench",
    "demo": "demo:demo",
    "doctor": "doctor:doctor",
    "completion": "completion:completion",
}

_INTERRUPTED = 130
_BROKEN_PIPE = 128 + 13  # as a program that SIGPIPE ends
# What only a running instance can have done to it.
_NEEDS_RUNNING = ("reboot", "halt", "kill", "connect", "attach", "run", "wait")


class Commands(click.Group):
    """The commands of the table above, each imported when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's interface
        """Their names, in the table's order."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's interface
        """The command of that name, imported now."""
        if cmd_name not in COMMANDS:
            return None
        module, _, function = COMMANDS[cmd_name].partition(":")
        command: click.Command = getattr(importlib.import_module(f".{module}", __package__), function)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Click's, but an unknown command is answered with what it may have been."""
        if args[0] not in COMMANDS and not args[0].startswith("-"):
            import difflib

            near = difflib.get_close_matches(args[0], COMMANDS)
            hint = f" Did you mean {' or '.join(near)}?" if near else ""
            raise click.UsageError(f"there is no command {args[0]!r}.{hint}", ctx)
        return super().resolve_command(ctx, args)


@click.command(
    cls=Commands,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="\b\nExample:\n  multikernel run server.py:main\n  multikernel init --cpus 0-1 && multikernel show",
)
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=lambda ctx, _, on: _version(ctx, on),
    help="Show the version and exit.",
)
@click.pass_context
def group(ctx: click.Context, debug: bool) -> None:
    """Kernel instances on cores of their own, talking by messages and interrupts through shared memory.

    `multikernel COMMAND --help` explains a command. Exit status: 0 done, 1 failed, 2 usage, 3 not running,
    4 no such machine or instance, 5 resources not available, 6 image refused, 7 timed out, 77 this system lacks
    what is needed, 130 Ctrl-C.
    """
    ctx.ensure_object(dict)["debug"] = debug
    if ctx.invoked_subcommand is None:
        output.talk(ctx.get_help())
        ctx.exit(click.UsageError.exit_code)


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command line, and say what went wrong. Returns the exit status."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # what an instance prints may not exist in the terminal's encoding
            stream.reconfigure(errors="backslashreplace")
    instruction = os.environ.get(COMPLETE)
    if instruction:
        from click.shell_completion import shell_complete

        return shell_complete(group, {}, PROGRAM, COMPLETE, instruction)
    state: dict[str, Any] = {}
    try:
        status = _run(arguments, state)
        if sys.stdout is not None:
            sys.stdout.flush()
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - told in one line, or raised again
        status = _fail(error, "--json" in _before_dashes(arguments), debug=state.get("debug", False))
        _drop_unwritten()
    return status


def exit_status(error: BaseException) -> int:
    """What the command line exits with after `error`."""
    from multikernel import errors

    if isinstance(error, click.ClickException):
        return error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return _INTERRUPTED
    if isinstance(error, errors.StateError):
        running = error.fields.get("state") in ("active", "standby")
        wanted = str(error.fields.get("step")).partition(" ")[0]  # "connect to"
        return 3 if wanted in _NEEDS_RUNNING and not running else 1
    for kind, status in (
        (errors.NotFound, 4),
        (errors.ResourceError, 5),
        (errors.ImageError, 6),
        (errors.Timeout, 7),
        (errors.Unsupported, 77),
    ):
        if isinstance(error, kind):
            return status
    return 1


def _run(arguments: list[str], state: dict[str, Any]) -> int:
    try:
        with group.make_context(PROGRAM, arguments, obj=state) as ctx:
            ctx.color = None if output.wants_colour() else False
            group.invoke(ctx)
    except click.exceptions.Exit as leave:
        return leave.exit_code
    return 0


def _fail(error: BaseException, as_json: bool, *, debug: bool) -> int:
    """Tell `error`, and give its exit status; one that nobody foresaw is raised again, with its traceback."""
    if isinstance(error, BrokenPipeError) and _nobody_reads():
        return _BROKEN_PIPE
    if debug:
        import traceback

        traceback.print_exception(error)
    status = exit_status(error)
    known = isinstance(error, (click.ClickException, KeyboardInterrupt, OSError, ValueError)) or _is_ours(error)
    with contextlib.suppress(OSError):  # nobody can be told: the status has to do
        if as_json and _told(error, status):
            pass
        elif isinstance(error, KeyboardInterrupt):
            output.talk("")
        elif known:
            output.talk(_line(error))
    if not known:
        raise error
    return status


def _told(error: BaseException, status: int) -> bool:
    """Tell `error` as a document; whether stdout took it."""
    try:
        output.document({"error": {**_described(error), "exit_status": status}})
    except BrokenPipeError:
        raise
    except OSError:  # which may well be the error
        return False
    return True


def _is_ours(error: BaseException) -> bool:
    from multikernel.errors import MultikernelError

    return isinstance(error, MultikernelError)


def _described(error: BaseException) -> dict[str, Any]:
    """Class, message and fields of an error, as plain data."""
    from multikernel.errors import to_wire

    if _is_ours(error):
        wire = to_wire(error)
        return {"type": wire["error"], "message": wire["message"], "fields": wire["fields"]}
    message = error.format_message() if isinstance(error, click.ClickException) else str(error)
    return {"type": type(error).__name__, "message": message or "interrupted", "fields": {}}


def _line(error: BaseException) -> str:
    """One line for a person; that an image failed brings its console's last lines."""
    if isinstance(error, click.UsageError):
        path = error.ctx.command_path if error.ctx else PROGRAM
        hint = "" if getattr(error, "final", False) else f" (`{path} --help`)"
        return f"{path}: {error.format_message()}{hint}"
    if isinstance(error, click.ClickException):
        return f"{PROGRAM}: {error.format_message()}"
    if isinstance(error, OSError) and not _is_ours(error):
        about = f"{error.filename}: " if error.filename else ""
        return f"{PROGRAM}: {about}{error.strerror or error}"
    return f"{PROGRAM}: {error}"


def _nobody_reads() -> bool:
    """Whether stdout is a pipe that was closed at its other end; then give it another one, for what is unsaid."""
    try:
        descriptor = sys.stdout.fileno()
    except (AttributeError, OSError, ValueError):
        return False
    poll = select.poll()
    poll.register(descriptor, 0)  # errors are told without asking
    closed = any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))
    if closed:
        _write_nowhere(descriptor)
    return closed


def _drop_unwritten() -> None:
    """What a stream did not take has been told; the interpreter would try it again at its end, and say so itself."""
    for stream in (sys.stdout, sys.stderr):
        if stream is None:
            continue
        try:
            stream.flush()
        except OSError:
            _write_nowhere(stream.fileno())


def _write_nowhere(descriptor: int) -> None:
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, descriptor)
    os.close(nothing)


def _before_dashes(arguments: list[str]) -> list[str]:
    return arguments[: arguments.index("--")] if "--" in arguments else arguments


def _version(ctx: click.Context, on: bool) -> None:
    if on and not ctx.resilient_parsing:
        from multikernel import __version__

        click.echo(f"{PROGRAM} {__version__}")
        ctx.exit()
