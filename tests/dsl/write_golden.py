"""Writes the goldens of `test_compiler.py` anew: `python -m tests.dsl.write_golden`, then read what has changed."""

from tests.dsl.test_compiler import DOCUMENTS, compiled
from tests.support.probe_agent import probe_agent

if __name__ == "__main__":
    with probe_agent():
        for file in DOCUMENTS:
            file.with_suffix(".py").write_text(compiled(file))
