"""`multikernel sign`: sign an image, for machines that load signed ones only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from . import complete, foreign, images, options, output


@click.command(
    epilog="\b\nExample:\n"
    "  multikernel sign --new-key --key release.key\n"
    "  multikernel sign server.py --key release.key\n"
    "  mkdir trusted && cp release.key.pub trusted && multikernel init --verify trusted"
)
@click.argument("image", required=False, shell_complete=complete.files)
@click.option(
    "--key",
    type=click.Path(path_type=Path),
    required=True,
    metavar="FILE",
    help="The private key: Ed25519, PEM, not encrypted.",
)
@click.option("--new-key", is_flag=True, help="Make the key first, and beside it FILE.pub, which is the public one.")
@click.option(
    "-o",
    "--output",
    "signature",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Where to write it. Default: beside the image, with .sig after its name; it is looked for there.",
)
@options.dry_run
@options.as_json
@options.verbose
@foreign.options("sign")
def sign(image: str | None, key: Path, new_key: bool, signature: Path | None, dry_run: bool, as_json: bool) -> None:
    """Sign an image.

    IMAGE is what `multikernel load` takes. Signed is what it is now: its kind, and the digest of all that a load would
    seal; of a module that is the whole package. It has to be signed again after any change.
    """
    if image is None and not new_key:
        raise click.UsageError("which image? Give one as to `multikernel load`, or --new-key.")
    done: dict[str, Any] = {"public_key": None}
    said = []
    if new_key:
        done["public_key"] = str(_make(key, dry_run=dry_run))
        said.append(f"{'would make' if dry_run else 'made'} {key} and {done['public_key']}")
    if image is not None and not (new_key and dry_run):
        done |= _signed(image, key, signature, dry_run=dry_run)
        said.append(f"{'would sign' if dry_run else 'signed'} {image} with the key {done['key']}: {done['signature']}")
    output.done({**done, "dry_run": dry_run}, as_json, "\n".join(said))


def _make(key: Path, *, dry_run: bool) -> Path:
    from multikernel.image import keys

    if not dry_run:
        return keys.make(key)
    keys.check_new(key)
    return keys.public_file(key)


def _signed(image: str, key: Path, signature: Path | None, *, dry_run: bool) -> dict[str, Any]:
    try:
        return images.sign(image, key, signature, dry_run=dry_run)
    except ValueError as error:
        from multikernel.errors import ImageError

        if isinstance(error, ImageError):
            raise
        raise click.BadParameter(str(error), param_hint="--key") from None
