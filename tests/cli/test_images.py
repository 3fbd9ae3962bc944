"""The commands, where they are about images."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize("verb", [("run", "image.py"), ("load", "web", "image.py")], ids=lambda verb: verb[0])
def test_an_open_quote_in_a_command_line_is_a_mistake_in_the_command(cli, verb):
    ran = cli(*verb, "--cmdline", 'name="two words', status=2)
    assert 'never closed, at character 6: "two words' in ran.err
    assert ran.err.count("\n") == 1
