"""`multikernel load`: give an instance the image that it boots."""

from __future__ import annotations

import click

from . import complete, describe, foreign, images, options, output, target


@click.command(
    epilog="\b\nExample:\n"
    "  multikernel load web server.py:main -c port=8080\n"
    "  multikernel load web ./app\n"
    "  multikernel load --id 1 -k package.module"
)
@click.argument("words", nargs=-1, metavar="[NAME] [IMAGE]", shell_complete=complete.instance_then_file)
@click.option("-k", "--kernel", metavar="IMAGE", help="The image; the same as IMAGE.")
@options.cmdline("-c")
@options.initrd("-i")
@click.option("--panic", is_flag=True, help="Boot it when the instance dies by itself, in its place.")
@options.instance_id
@options.machine_name
@options.dry_run
@options.as_json
@options.verbose
@foreign.options("load")
def load(
    words: tuple[str, ...],
    kernel: str | None,
    cmdline: str,
    initrd: str | None,
    panic: bool,
    number: int | None,
    machine_name: str | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Give an instance an image to boot.

    IMAGE is FILE.py:FUNCTION or PACKAGE.MODULE:FUNCTION, or FILE.pyz:FUNCTION or the path of a directory, which have
    the function in their __main__.py; main, if none is named. Or ./PROGRAM, an executable written against
    multikernel/kernel.h. It is read now, once: what becomes of the file afterwards changes nothing.
    """
    name, image = _name_and_image(words, kernel, number)
    with target.machine(machine_name) as machine:
        instance = target.instance(machine, name, number)
        images.load(instance, image, cmdline, initrd, panic=panic, dry_run=dry_run)
        where = f"{instance.name} as its crash image" if panic else instance.name
        text = f"{'would load' if dry_run else 'loaded'} {image} into {where}"
        output.done(
            describe.outcome(instance, image=image, cmdline=cmdline, initrd=initrd, dry_run=dry_run), as_json, text
        )


def _name_and_image(words: tuple[str, ...], kernel: str | None, number: int | None) -> tuple[str | None, str]:
    """Which word is which: the name may be given by --id instead, the image by --kernel."""
    rest = list(words)
    names = 1 if number is None else 0
    if kernel is None and len(rest) > names:
        kernel = rest.pop()
    name = rest.pop(0) if rest else None
    if rest:
        raise click.UsageError(f"one NAME and one IMAGE are enough; what is {rest[0]!r}?")
    target.check(name, number)
    if kernel is None:
        raise click.UsageError("which image? Give FILE.py:FUNCTION, PACKAGE.MODULE:FUNCTION, FILE.pyz or a directory.")
    return name, kernel
