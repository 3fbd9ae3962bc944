"""The host's table of images: what is kept, how often, and what the machine page says of it."""

from __future__ import annotations

import os

import pytest

from multikernel.errors import ResourceError
from multikernel.host.images import MOST_IMAGES, ImageTable
from multikernel.image import Image
from multikernel.shm.pages import MachinePage, MachineView


@pytest.fixture
def page():
    page = MachinePage.create("images")
    yield page
    page.close()


@pytest.fixture
def rows(page):
    """What the page says: id, name, users of each image."""
    view = MachineView(page.fd)
    yield lambda: [(each.id, each.name, each.users) for each in view.images()]
    view.close()


@pytest.fixture
def table(page):
    table = ImageTable(page)
    yield table
    table.close()


def make(content: bytes = b"content", **changed) -> Image:
    fields = {"kind": "script", "name": "a.py:main", "entry": "main", "module": "a", "origin": "/a.py", "path": ["/"]}
    return Image.make(content, **(fields | changed))


def test_same_image_is_kept_once_until_its_last_user_is_gone(table, rows):
    before = len(os.listdir("/proc/self/fd"))
    number, first = table.take(make(), "unsigned")
    for _ in range(3):
        assert table.take(make(), "unsigned") == (number, first)
    assert len(os.listdir("/proc/self/fd")) == before + 1
    assert rows() == [(1, "a.py:main", 4)]
    for _ in range(4):
        assert first.content() == b"content"
        table.release(number)
    assert (first.fd, rows(), len(os.listdir("/proc/self/fd"))) == (-1, [], before)


@pytest.mark.parametrize("changed", [{"name": "b.py:main"}, {"entry": "other"}, {"path": ["/lib"]}, {"kind": "pyz"}])
def test_same_content_that_is_called_or_entered_otherwise_is_another_image_and_the_same_memory(table, rows, changed):
    _, first = table.take(make(), "unsigned")
    number, second = table.take(make(**changed), "unsigned")
    assert [row[2] for row in rows()] == [1, 1]
    assert os.fstat(first.fd).st_ino == os.fstat(second.fd).st_ino
    table.release(1)
    assert second.content() == b"content"
    table.release(number)


def test_image_whose_signature_was_not_checked_is_not_the_one_whose_was(table, rows):
    table.take(make(), "unsigned")
    table.take(make(), "ab" * 8)
    assert [row[0] for row in rows()] == [1, 2]


def test_there_can_be_so_many_images_and_no_more_and_the_one_refused_is_still_the_callers(table, rows):
    for number in range(MOST_IMAGES):
        assert table.take(make(name=f"{number}"), "unsigned")[0] == number + 1
    with make(name="more") as more:
        with pytest.raises(ResourceError, match=f"{MOST_IMAGES} different images"):
            table.take(more, "unsigned")
        assert more.content() == b"content"
    table.release(5)
    assert table.take(make(name="again"), "unsigned")[0] == 5
