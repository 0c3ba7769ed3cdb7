"""Changes of sources are noticed once they have settled."""

import asyncio
from pathlib import Path

from runtara.runner.watch import changes, differences, snapshot


async def test_a_changed_a_new_and_a_removed_file_are_noticed_and_others_are_not(tmp_path: Path) -> None:
    for name in ("app.py", "old.py", "notes.txt"):
        (tmp_path / name).write_text("1")
    (tmp_path / ".venv").mkdir()
    seen = changes([tmp_path], poll=0.02)
    first = asyncio.ensure_future(anext(seen))
    await asyncio.sleep(0)
    (tmp_path / "notes.txt").write_text("22")
    (tmp_path / ".venv" / "lib.py").write_text("22")
    (tmp_path / "app.py").write_text("22")
    (tmp_path / "old.py").unlink()
    (tmp_path / "new.py").write_text("1")
    async with asyncio.timeout(10):
        assert await first == [str(tmp_path / name) for name in ("app.py", "new.py", "old.py")]


def test_nothing_changed_is_no_difference(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("1")
    assert differences(snapshot([tmp_path]), snapshot([tmp_path])) == []
