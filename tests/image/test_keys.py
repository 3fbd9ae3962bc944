from __future__ import annotations

import hashlib
import subprocess
import sys

import pytest
from cryptography.hazmat.primitives import serialization  # noqa: TID253
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key  # noqa: TID253
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: TID253

from multikernel.image import keys

PEM, PKCS8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
PUBLIC = serialization.PublicFormat.SubjectPublicKeyInfo


def private_pem(key, encryption=None) -> bytes:
    return key.private_bytes(PEM, PKCS8, encryption or serialization.NoEncryption())


def public_pem(key) -> bytes:
    return key.public_key().public_bytes(PEM, PUBLIC)


def test_new_key_is_its_owners_alone_and_its_public_one_everybodys(tmp_path):
    file = tmp_path / "release.key"
    assert keys.make(file) == tmp_path / "release.key.pub"
    assert (file.stat().st_mode & 0o777, (tmp_path / "release.key.pub").stat().st_mode & 0o077) == (0o600, 0o044)
    public = keys.read_private(file).public_key().public_bytes_raw()
    assert keys.read_folder(tmp_path) == [public]
    assert keys.key_id(public) == hashlib.sha256(public).hexdigest()[:16]


@pytest.mark.parametrize("there", ["release.key", "release.key.pub"])
def test_new_key_overwrites_nothing(tmp_path, there):
    (tmp_path / there).write_text("precious")
    with pytest.raises(FileExistsError, match="no key is overwritten"):
        keys.make(tmp_path / "release.key")
    assert [each.read_text() for each in tmp_path.iterdir()] == ["precious"]


def test_folder_is_read_in_the_order_of_names_and_the_same_key_counts_once(tmp_path):
    made = [Ed25519PrivateKey.generate() for _ in range(3)]
    for name, key in zip(["c.pub", "a.pem", "b.pub"], made, strict=True):
        (tmp_path / name).write_bytes(public_pem(key))
    (tmp_path / "again.pub").write_bytes(public_pem(made[1]))
    (tmp_path / "README").write_text("who is who")
    (tmp_path / "old.pub").mkdir()
    assert keys.read_folder(str(tmp_path)) == [made[each].public_key().public_bytes_raw() for each in (1, 2, 0)]


EC = generate_private_key(SECP256R1())
ED = Ed25519PrivateKey.generate()


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", r"key\.pub is no public key in PEM; `openssl pkey -in KEY -pubout` writes one"),
        (private_pem(ED), r"key\.pub is no public key in PEM"),
        (public_pem(ED)[:60], r"key\.pub is no public key in PEM"),
        (public_pem(EC), r"key\.pub is a public key, but not an Ed25519 one"),
    ],
    ids=["empty", "private", "cut", "another"],
)
def test_folder_with_something_else_that_is_called_a_key_is_refused(tmp_path, content, text):
    (tmp_path / "good.pub").write_bytes(public_pem(ED))
    (tmp_path / "key.pub").write_bytes(content)
    with pytest.raises(ValueError, match=text):
        keys.read_folder(tmp_path)


def test_folder_without_keys_or_that_is_none_is_refused(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"no key in .* the machine would load nothing\. `multikernel sign --new-key`"):
        keys.read_folder(tmp_path)
    with pytest.raises(ValueError, match="nowhere, cannot be read: No such file or directory"):
        keys.read_folder(tmp_path / "nowhere")
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="cannot be read: Not a directory"):
        keys.read_folder(tmp_path / "file")
    monkeypatch.setattr(keys, "MOST_KEYS", 2)
    for name in ("a.pub", "b.pub", "c.pub"):
        (tmp_path / name).write_bytes(public_pem(ED))
    with pytest.raises(ValueError, match=r"there are 3 keys in .*; a machine can trust 2"):
        keys.read_folder(tmp_path)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", r"is no private key in PEM; `multikernel sign --new-key` makes one"),
        (public_pem(ED), r"is no private key in PEM"),
        (private_pem(EC), r"is a private key, but not an Ed25519 one"),
        (private_pem(ED, serialization.BestAvailableEncryption(b"x")), r"is encrypted; `openssl pkey -in .* decrypts"),
    ],
    ids=["empty", "public", "another", "encrypted"],
)
def test_something_else_than_a_private_key_is_refused(tmp_path, content, text):
    (tmp_path / "key").write_bytes(content)
    with pytest.raises(ValueError, match=text):
        keys.read_private(tmp_path / "key")


def test_private_key_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ValueError, match="nothing cannot be read: No such file"):
        keys.read_private(tmp_path / "nothing")


def test_without_the_library_the_error_says_how_to_get_it(tmp_path):
    (tmp_path / "key.pub").write_bytes(public_pem(ED))
    code = (
        "import sys; sys.modules['cryptography'] = None\n"
        "import multikernel as mk\n"
        "from multikernel.image import keys\n"
        "try: mk.Machine(verify=sys.argv[1])\n"
        "except mk.Unsupported as error: print(error)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    said = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout
    assert "signatures need the library cryptography" in said
    assert "pip install 'multikernel[sign]'" in said
