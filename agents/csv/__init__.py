"""The agent `csv`, and reading and writing of CSV piece by piece for workflows in Python.

`rows` and `records` read a stream of any length in bounded memory, `lines` writes one.
"""

from .agent import Csv
from .options import CsvOptions, FromCsv, GetHeader, ToCsv
from .reading import records, rows
from .writing import lines

__all__ = ["Csv", "CsvOptions", "FromCsv", "GetHeader", "ToCsv", "lines", "records", "rows"]
