"""Signatures of images: a file beside the image, in lines of text.

    multikernel-signature 1
    kind: script
    digest: sha256:9f86d0...
    key: 0123456789abcdef
    signature: base64 of the 64 bytes

What is signed, with Ed25519, is the first three lines, each with its newline: the kind of the image and the digest of
its sealed content. So neither a byte of it nor how it is understood can be another; which function is entered, and how
the file is called, can. The lines after them are found by; nothing in the file is believed.
"""

from __future__ import annotations

import base64
import binascii
import errno
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from multikernel.errors import ImageError

from .keys import key_id

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from .image import Image

UNSIGNED = "unsigned"
"""What is said of an image that has no signature."""
UNCHECKED = "unchecked"
"""What is said of one that has, where nobody has looked at it."""
SUFFIX = ".sig"
LONGEST = 4096
"""Most characters that a signature's file may have."""

_FIRST_LINE = "multikernel-signature 1"
_DIGEST, _KEY = re.compile("sha256:[0-9a-f]{64}"), re.compile("[0-9a-f]{16}")
_FIELDS = ("kind", "digest", "key", "signature")


@dataclass(frozen=True, slots=True)
class Signature:
    """What a signature's file says.

    Attributes:
        kind: of the image.
        digest: of its content, "sha256:" and hex.
        key: id of the key.
        value: the signature itself.
    """

    kind: str
    digest: str
    key: str
    value: bytes

    @classmethod
    def make(cls, image: Image, key: Ed25519PrivateKey) -> Self:
        """Sign `image`."""
        public = key.public_key().public_bytes_raw()
        return cls(image.kind, _digest(image), key_id(public), key.sign(_statement(image.kind, _digest(image))))

    @classmethod
    def parse(cls, text: str) -> Self:
        """From the text of the file. ValueError: it is none."""
        lines = text.splitlines()
        fields = dict(line.split(": ", 1) for line in lines[1:] if ": " in line)
        if lines[:1] != [_FIRST_LINE] or tuple(fields) != _FIELDS or len(lines) != len(_FIELDS) + 1:
            raise ValueError(f"it is not five lines, of which the first is {_FIRST_LINE!r}")
        if not (
            fields["kind"].isidentifier() and _DIGEST.fullmatch(fields["digest"]) and _KEY.fullmatch(fields["key"])
        ):
            raise ValueError("its kind, digest or key is none")
        try:
            value = base64.b64decode(fields["signature"], validate=True)
        except (binascii.Error, ValueError):
            raise ValueError("its signature is not base64") from None
        return cls(fields["kind"], fields["digest"], fields["key"], value)

    def text(self) -> str:
        """The text of the file."""
        value = base64.b64encode(self.value).decode()
        return f"{_statement(self.kind, self.digest).decode()}key: {self.key}\nsignature: {value}\n"


class Trust:
    """The keys of which one must have signed what a machine loads.

    Args:
        keys: their public bytes; none: everything is loaded, and nothing checked.
    """

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._keys = {key_id(each): each for each in keys}

    def __len__(self) -> int:
        return len(self._keys)

    def check(self, image: Image, text: str | None) -> str:
        """Look at the signature of a sealed image.

        Args:
            image: whose digest was made of the sealed content.
            text: of the signature's file; None: there is none.

        Returns:
            The id of the key that has signed it; where nothing is checked, UNSIGNED or UNCHECKED.

        Raises:
            ImageError: there is no signature, it is damaged, of other bytes or another kind, or by no trusted key. The
                field `reason` says which: "unsigned", "malformed", "changed", "kind", "untrusted" or "forged".
        """
        if not self._keys:
            return UNSIGNED if text is None else UNCHECKED
        file = f"{image.origin}{SUFFIX}"
        again = f"Sign it: multikernel sign {image.name} --key KEY."
        if text is None:
            raise _refused(image, "unsigned", f"this machine loads signed images only, and there is no {file}. {again}")
        try:
            signature = Signature.parse(text)
        except ValueError as error:
            raise _refused(image, "malformed", f"{file} is no signature: {error}. {again}") from None
        if signature.digest != _digest(image):
            raise _refused(
                image,
                "changed",
                f"it has changed since it was signed: that was {signature.digest}, this is {_digest(image)}. {again}",
            )
        if signature.kind != image.kind:
            raise _refused(
                image, "kind", f"its signature is for a {signature.kind}, and it is loaded as a {image.kind}. {again}"
            )
        public = self._keys.get(signature.key)
        if public is None:
            raise _refused(
                image,
                "untrusted",
                f"it is signed with the key {signature.key}, which this machine does not trust; it trusts "
                f"{', '.join(self._keys)}.",
            )
        if not _is_by(public, signature.value, _statement(image.kind, _digest(image))):
            raise _refused(
                image, "forged", f"{file} says that the key {signature.key} has signed it, and that is not so. {again}"
            )
        return signature.key


def beside(image: Image) -> str | None:
    """The text of the signature's file beside an image; None: there is none.

    Raises:
        ImageError: there is one that cannot be read.
    """
    file = f"{image.origin}{SUFFIX}"
    try:
        with open(file, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as opened:
            return opened.read(LONGEST).decode(errors="replace")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:  # the image's own name is as long as names are, so there can be none
            return None
        raise ImageError(
            f"cannot load {image.name!r}: its signature {file} cannot be read: {error.strerror}.", path=file
        ) from error


def _statement(kind: str, digest: str) -> bytes:
    return f"{_FIRST_LINE}\nkind: {kind}\ndigest: {digest}\n".encode()


def _digest(image: Image) -> str:
    return f"sha256:{image.digest}"


def _is_by(public: bytes, value: bytes, statement: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(public).verify(value, statement)
    except InvalidSignature:
        return False
    return True


def _refused(image: Image, reason: str, text: str) -> ImageError:
    return ImageError(f"cannot load {image.name!r}: {text}", reason=reason, digest=image.digest)
