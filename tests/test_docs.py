"""Pages that are made from the code are current."""

import subprocess
import sys
from pathlib import Path


def test_the_settings_page_is_current() -> None:
    script = Path(__file__).parents[1] / "docs" / "generate.py"
    done = subprocess.run([sys.executable, str(script), "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
