"""Each family of docs/architectures.md: on the fly, saved, loaded again, and compared with its float model."""

import re

import pytest
import transformers
from conftest import REPOSITORY
from families import FAMILIES
from support_table import Findings, examine, table

PAGE = (REPOSITORY / "docs" / "architectures.md").read_text()
PAGE_RELEASE = re.search(r"with transformers (\S+),", PAGE)[1]


@pytest.fixture(scope="module")
def examined(tmp_path_factory):
    """What was found of the families so far, and a function that looks at one more."""
    found: dict[str, Findings] = {}

    def examine_once(family):
        if family.name not in found:
            found[family.name] = examine(family, tmp_path_factory.mktemp("family"))
        return found[family.name]

    return examine_once


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_family(family, examined):
    findings = examined(family)
    assert findings.problems == []
    assert findings.converted > 0


def test_page_is_of_the_release_that_is_pinned():
    assert f"\ntransformers=={PAGE_RELEASE}\n" in f"\n{(REPOSITORY / 'constraints.txt').read_text()}"


@pytest.mark.skipif(transformers.__version__ != PAGE_RELEASE, reason=f"the page is of transformers {PAGE_RELEASE}")
def test_page_is_what_the_command_writes(examined):
    expected = table({family.name: examined(family) for family in FAMILIES})
    assert expected == PAGE, "run python tests/architectures/support_table.py --write docs/architectures.md"
