import re

import backend_walk
import pytest
from conftest import NEEDS_KERNELS, REPOSITORY

PAGE = REPOSITORY / "docs" / "how" / "backend.md"


@NEEDS_KERNELS
def test_page_shows_what_the_compiler_makes(tmp_path, monkeypatch):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    text = PAGE.read_text()
    if backend_walk.versions() not in text:
        pytest.skip(f"the page was made by other releases than {backend_walk.versions()}")
    made = backend_walk.blocks()
    assert set(re.findall("<!-- made: (.*) -->", text)) == set(made)
    assert backend_walk.filled(text, made) == text
