"""The commands that docs/operations.md shows, so that tests type the very same."""

import re
from pathlib import Path
from typing import Final

PAGE: Final = Path(__file__).parents[2] / "docs" / "operations.md"


def commands(name: str) -> str:
    """The block of the page that follows the comment `<!-- commands: NAME -->`."""
    found = re.search(rf"<!-- commands: {name} -->\n```sh\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert found is not None, name
    return found[1]
