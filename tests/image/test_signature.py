from __future__ import annotations

import base64
import dataclasses

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: TID253
from hypothesis import given
from hypothesis import strategies as st

from multikernel.errors import ImageError
from multikernel.image import Image
from multikernel.image.keys import key_id
from multikernel.image.signature import Signature, Trust, beside

KEY, OTHER = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()


def public(key: Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes_raw()


def make(content: bytes = b"content", **changed) -> Image:
    fields = {"kind": "script", "name": "a.py:main", "entry": "main", "module": "a", "origin": "/a.py", "path": ["/"]}
    return Image.make(content, **(fields | changed))


@pytest.fixture
def image():
    with make() as image:
        yield image


@pytest.fixture
def signed(image) -> str:
    return Signature.make(image, KEY).text()


def refusal(trust: Trust, image: Image, text: str | None) -> ImageError:
    with pytest.raises(ImageError) as caught:
        trust.check(image, text)
    assert str(caught.value).startswith("cannot load 'a.py:main': ")
    return caught.value


def test_image_signed_by_a_trusted_key_is_accepted_and_the_signer_named(image, signed):
    assert Trust([public(OTHER), public(KEY)]).check(image, signed) == key_id(public(KEY))


def test_file_is_text_whose_first_three_lines_are_what_is_signed(image, signed):
    """Anybody can check it with the tools at hand: docs/images.md says how."""
    lines = signed.splitlines(keepends=True)
    assert lines[:3] == ["multikernel-signature 1\n", "kind: script\n", f"digest: sha256:{image.digest}\n"]
    assert lines[3] == f"key: {key_id(public(KEY))}\n"
    value = base64.b64decode(lines[4].removeprefix("signature: "))
    KEY.public_key().verify(value, "".join(lines[:3]).encode())


def test_without_trusted_keys_nothing_is_checked_and_that_is_said(image):
    assert Trust([]).check(image, None) == "unsigned"
    assert Trust([]).check(image, "anything") == "unchecked"


def test_image_without_a_signature_is_refused(image):
    error = refusal(Trust([public(KEY)]), image, None)
    assert error.reason == "unsigned"
    assert "loads signed images only, and there is no /a.py.sig. Sign it: multikernel sign a.py:main --key" in str(
        error
    )


def test_image_of_other_bytes_is_refused(signed, image):
    with make(b"CONTENT") as changed:
        error = refusal(Trust([public(KEY)]), changed, signed)
    assert error.reason == "changed"
    assert f"that was sha256:{image.digest}, this is sha256:{changed.digest}" in str(error)


def test_image_that_is_loaded_as_another_kind_is_refused(signed):
    with make(kind="native") as other:
        error = refusal(Trust([public(KEY)]), other, signed)
    assert error.reason == "kind"
    assert "its signature is for a script, and it is loaded as a native" in str(error)


def test_signature_whose_words_were_changed_to_fit_is_refused(signed, image):
    """What the file says is not what is believed."""
    with make(b"CONTENT") as changed, make(kind="native") as other:
        for text, it in (
            (signed.replace(image.digest, changed.digest), changed),
            (signed.replace("script", "native"), other),
            (signed.replace(key_id(public(KEY)), key_id(public(OTHER))), image),
        ):
            error = refusal(Trust([public(KEY), public(OTHER)]), it, text)
            assert error.reason == "forged"
            assert "has signed it, and that is not so" in str(error)


def test_image_signed_by_a_key_that_is_not_trusted_is_refused(image, signed):
    error = refusal(Trust([public(OTHER)]), image, signed)
    assert error.reason == "untrusted"
    assert (
        f"the key {key_id(public(KEY))}, which this machine does not trust; it trusts {key_id(public(OTHER))}"
        in str(error)
    )


@pytest.mark.parametrize(
    "change",
    [
        lambda text: "",
        lambda text: text.replace("signature 1", "signature 2"),
        lambda text: text.replace("kind", "sort"),
        lambda text: text + "more: x\n",
        lambda text: "".join(text.splitlines(keepends=True)[:4]),
        lambda text: text[:-4] + "!\n",
        lambda text: text.replace("sha256:", "md5:"),
        lambda text: text.replace("key: ", "key: \x1b[31m"),
        lambda text: text.replace("kind: script", "kind: a b"),
    ],
)
def test_file_that_is_no_signature_is_refused(image, signed, change):
    error = refusal(Trust([public(KEY)]), image, change(signed))
    assert error.reason == "malformed"
    assert "/a.py.sig is no signature: it" in str(error)


@given(st.data())
def test_only_the_signature_itself_is_accepted(data):
    with make() as image:
        made = Signature.make(image, KEY)
        name = data.draw(st.sampled_from(["kind", "digest", "key", "value"]))
        value = data.draw(st.binary(max_size=80) if name == "value" else st.text(max_size=80))
        text = dataclasses.replace(made, **{name: value}).text()
        if getattr(made, name) == value:
            assert Trust([public(KEY)]).check(image, text)
        else:
            refusal(Trust([public(KEY)]), image, text)


@given(st.text(max_size=300))
def test_any_text_is_refused_without_another_error(text):
    with make() as image:
        refusal(Trust([public(KEY)]), image, text)


def test_signature_comes_back_from_its_text(image, signed):
    assert Signature.parse(signed) == Signature.make(image, KEY)


def test_image_whose_name_has_no_room_for_the_suffix_has_no_signature(tmp_path):
    longest = tmp_path / f"{'n' * 252}.py"
    longest.touch()
    with make(origin=str(longest)) as image:
        assert beside(image) is None


def test_signature_is_looked_for_beside_the_image(tmp_path):
    with make(origin=str(tmp_path / "a.py")) as image:
        assert beside(image) is None
        (tmp_path / "a.py.sig").write_bytes(b"text\xff")
        assert beside(image) == "text\ufffd"
        (tmp_path / "a.py.sig").write_bytes(b"x" * 10_000)
        assert len(beside(image)) == 4096
        (tmp_path / "a.py.sig").unlink()
        (tmp_path / "a.py.sig").mkdir()
        with pytest.raises(ImageError, match=r"its signature .*a\.py\.sig cannot be read: Is a directory"):
            beside(image)
    with make(origin=str(tmp_path / "a.py.sig/b")) as image:
        assert beside(image) is None
