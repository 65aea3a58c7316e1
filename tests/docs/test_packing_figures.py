import packing_figures
from conftest import REPOSITORY

FOLDER = REPOSITORY / "docs" / "how"


def test_drawings_are_those_of_the_code():
    drawn = {packing_figures.file_name(p): packing_figures.drawing(p, t) for p, t in packing_figures.packings().items()}
    assert drawn == {file.name: file.read_text() for file in FOLDER.glob("packing-*.svg")}
    page = (FOLDER / "packings.md").read_text()
    assert all(f"]({name})" in page for name in drawn)
