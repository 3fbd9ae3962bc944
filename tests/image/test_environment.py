"""What an image takes from the environment, as it is listed: found without importing anything."""

from __future__ import annotations

import json
import sys

import pytest

from multikernel.image import read

PYTHON = f"python {'.'.join(map(str, sys.version_info[:3]))}"
MAIN = "def main(kernel): pass\n"


@pytest.fixture
def imports(write, tmp_path):
    """Write files, and list what an image of them imports; `lib` and `site` are the import path."""

    def imports(files: dict[str, str], spec: str = "server.py") -> list[str]:
        write(files)
        with read(spec, directory=str(tmp_path), path=["lib", "site"]) as image:
            assert image.imports[0] == PYTHON
            return image.imports[1:]

    return imports


def installed(name: str, version: str, **files: str) -> dict[str, str]:
    """Files as an installer leaves them, for a distribution."""
    info = f"site/{name}-{version}.dist-info"
    return {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        **{f"{info}/{file.replace('__', '.')}": text for file, text in files.items()},
    }


def test_modules_are_listed_by_name_and_version_and_those_of_the_standard_library_are_not(imports):
    site = installed("numbers_lib", "2.1") | {"site/numbers_lib/__init__.py": "1 / 0\n"}
    source = "from __future__ import annotations\nimport sys, os.path, numbers_lib.sub\n" + MAIN
    assert imports(site | {"server.py": source}) == ["numbers_lib 2.1"]
    assert "numbers_lib" not in sys.modules


def test_module_whose_distribution_is_called_otherwise_is_found_by_its_list(imports):
    site = installed("PyThing", "1.0.post1", top_level__txt="thing\n_thing\n") | {"site/thing.py": ""}
    site |= installed("other-thing", "3", RECORD="odd/__init__.py,,\nlone.py,,\n") | {
        "site/odd/__init__.py": "",
        "site/lone.py": "",
    }
    source = f"import thing, odd, lone\n{MAIN}"
    assert imports(site | {"server.py": source}) == ["lone 3", "odd 3", "thing 1.0.post1"]


def test_file_beside_a_script_has_no_version_and_what_is_not_there_is_missing(imports):
    source = f"import helper\ntry:\n    import nowhere\nexcept ImportError: pass\n{MAIN}"
    files = {"server.py": source, "helper.py": "import unseen\n"} | installed("helper", "9")
    assert imports(files) == ["helper -", "nowhere missing"]


def test_distribution_that_somebody_works_in_is_found_though_it_lies_elsewhere(imports):
    source = json.dumps({"url": "file:///x", "dir_info": {"editable": True}})
    site = installed("worked_on", "0.1", direct_url__json=source)
    assert imports(site | {"lib/worked_on.py": "", "server.py": f"import worked_on\n{MAIN}"}) == ["worked_on 0.1"]


def test_imports_are_followed_through_the_image_and_not_beyond(imports):
    files = {
        "lib/pkg/__init__.py": "from . import config\n",
        "lib/pkg/config.py": "import a_config\n",
        "lib/pkg/service.py": f"from .sub.deep import thing\nfrom .sub import wide\nfrom . import *\n{MAIN}",
        "lib/pkg/sub/__init__.py": "import a_sub\n",
        "lib/pkg/sub/deep.py": "def f():\n    from .. import lazy\n    import a_deep.below\n",
        "lib/pkg/sub/wide.py": "import pkg.named\nfrom ..sibling import x\nfrom .... import beyond\n",
        "lib/pkg/lazy.py": "import a_lazy\n",
        "lib/pkg/named.py": "import a_named, pkg.service\n",
        "lib/pkg/sibling.py": "import a_sibling\n",
        "lib/pkg/never.py": "import a_never\n",
        "lib/a_deep.py": "import a_beyond\n",
    }
    names = ["a_config", "a_deep", "a_lazy", "a_named", "a_sibling", "a_sub"]
    assert [each.partition(" ")[0] for each in imports(files, "pkg.service")] == names


def test_modules_of_a_directory_are_in_the_image_and_their_imports_are_listed(imports):
    files = {"app/__main__.py": f"import helper, outer\n{MAIN}", "app/helper.py": "import numbers_lib\n"}
    site = installed("numbers_lib", "2.1") | {"site/numbers_lib.py": ""}
    assert imports(site | files, "./app") == ["numbers_lib 2.1", "outer missing"]


def test_module_that_does_not_parse_is_left_to_whoever_imports_it(imports):
    files = {"lib/pkg/__init__.py": f"def f():\n    from . import new\n{MAIN}", "lib/pkg/new.py": "type X = ((\n"}
    assert imports(files, "pkg") == []


def test_image_of_the_library_lists_what_it_imports_itself(imports):
    with read("multikernel.resources.names:check_name") as image:
        assert image.imports == [PYTHON]
