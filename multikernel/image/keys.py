"""Ed25519 keys as files: PEM, as `openssl genpkey -algorithm ed25519` and `openssl pkey -pubout` write them.

A key's id is the beginning of the SHA-256 digest of its 32 public bytes, in hex.
"""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from multikernel.errors import Unsupported

if TYPE_CHECKING:
    from types import ModuleType

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

MOST_KEYS = 256
"""Most keys that a machine can trust."""
PUBLIC_SUFFIXES = (".pub", ".pem")

_LONGEST_FILE = 64 * 1024  # bytes; a key has some hundred
_ID_SIZE = 16  # characters


def key_id(public: bytes) -> str:
    """What a key is called, by its public bytes."""
    return hashlib.sha256(public).hexdigest()[:_ID_SIZE]


def read_folder(folder: str | os.PathLike[str]) -> list[bytes]:
    """The public keys in a folder: of each file that is called *.pub or *.pem, in the order of names.

    Raises:
        ValueError: there is no such folder, no key in it, or a file of that name that is no Ed25519 public key.
        Unsupported: the library for it is missing.
    """
    place = Path(folder)
    try:
        files = sorted(each for each in place.iterdir() if each.suffix in PUBLIC_SUFFIXES and not each.is_dir())
    except OSError as error:
        raise ValueError(f"the folder of trusted keys, {place}, cannot be read: {error.strerror}") from error
    if not files:
        raise ValueError(
            f"there is no key in {place} (no *.pub and no *.pem): the machine would load nothing. "
            "`multikernel sign --new-key` makes a key and the .pub to put there."
        )
    if len(files) > MOST_KEYS:
        raise ValueError(f"there are {len(files)} keys in {place}; a machine can trust {MOST_KEYS}")
    return list(dict.fromkeys(read_public(each) for each in files))


def read_public(file: Path) -> bytes:
    """The public bytes of a key. Raises as `read_folder`."""
    _library()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    content = _read(file)
    try:
        key = serialization.load_pem_public_key(content)
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError(f"{file} is no public key in PEM; `openssl pkey -in KEY -pubout` writes one") from None
    if not isinstance(key, Ed25519PublicKey):
        raise ValueError(f"{file} is a public key, but not an Ed25519 one")
    return key.public_bytes_raw()


def read_private(file: Path) -> Ed25519PrivateKey:
    """A private key.

    Raises:
        ValueError: there is no such file, or it is no Ed25519 private key, or is encrypted.
        Unsupported: the library for it is missing.
    """
    _library()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    content = _read(file)
    try:
        key = serialization.load_pem_private_key(content, password=None)
    except TypeError:
        raise ValueError(f"{file} is encrypted; `openssl pkey -in {file} -out PLAIN` decrypts it") from None
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError(
            f"{file} is no private key in PEM; `multikernel sign --new-key` makes one, and so does "
            "`openssl genpkey -algorithm ed25519`"
        ) from None
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError(f"{file} is a private key, but not an Ed25519 one")
    return key


def make(file: Path) -> Path:
    """Make a private key, readable by its owner alone, and beside it the public one, which is what is returned.

    Raises:
        FileExistsError: one of the two files is there. Nothing is overwritten.
        OSError: they cannot be written. Nothing is left then.
        Unsupported: the library for it is missing.
    """
    _library()
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    check_new(file)
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    _write_new(file, private, 0o600)
    try:
        _write_new(public_file(file), public, 0o644)
    except BaseException:
        file.unlink()
        raise
    return public_file(file)


def public_file(file: Path) -> Path:
    """Where `make` puts the public key of the private one in `file`."""
    return file.with_name(f"{file.name}.pub")


def check_new(file: Path) -> None:
    """Refuse to make a key where there is one. Raises as `make` does."""
    for each in (file, public_file(file)):
        if os.path.lexists(each):
            raise FileExistsError(errno.EEXIST, "there is a file of that name, and no key is overwritten", str(each))


def _read(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            return opened.read(_LONGEST_FILE)
    except OSError as error:
        raise ValueError(f"the key {file} cannot be read: {error.strerror}") from error


def _write_new(file: Path, content: bytes, mode: int) -> None:
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with open(descriptor, "wb") as opened:
            opened.write(content)
    except BaseException:
        file.unlink()
        raise


def _library() -> ModuleType:
    try:
        import cryptography
    except ImportError:
        raise Unsupported(
            "signatures need the library cryptography, which is not installed: pip install 'multikernel[sign]'"
        ) from None
    return cryptography
