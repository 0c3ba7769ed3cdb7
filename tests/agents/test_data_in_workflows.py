"""The data agents as steps of a Python workflow: their records are recorded, and answered with after a crash."""

import hashlib
from typing import cast

from pydantic import JsonValue

from runtara.agents.compression import ArchiveFile, Compression, CreateArchive, ExtractArchive
from runtara.agents.crypto import Crypto, HashData
from runtara.agents.csv import Csv, FromCsv
from runtara.agents.transform import Sort, Transform
from runtara.agents.xml import ToXml, Xml
from runtara.sdk import Context, workflow
from runtara.sdk.testing import MemoryPlatform, assert_crash_safe


@workflow
async def convert(ctx: Context, text: str) -> dict[str, object]:
    rows = await ctx.step("read", Csv().from_csv, FromCsv(data=text))
    values = cast("list[JsonValue]", rows)  # which their type does not say, as lists may be changed
    ordered = await ctx.step("sort", Transform().sort, Sort(value=values, property_path="n"))
    document = await ctx.step("write", Xml().to_xml, ToXml(value={"rows": {"row": ordered.items}}))
    digest = await ctx.step("hash", Crypto().hash, HashData(data=document))
    file = ArchiveFile(file=document, path=f"{digest.hash[:8]}.xml")
    archive = await ctx.step("pack", Compression().create_archive, CreateArchive(files=[file]))
    found = await ctx.step("unpack", Compression().extract_archive, ExtractArchive(archive=archive))
    return {"rows": ordered.count, "path": found.files[0].path, "size": found.files[0].size, "digest": digest.hash}


DOCUMENT = '<?xml version="1.0" encoding="UTF-8"?>\n<rows><row><n>a</n></row><row><n>b</n></row></rows>'


async def test_what_agents_give_goes_through_the_log_and_into_the_next_agent() -> None:
    digest = hashlib.sha256(DOCUMENT.encode()).hexdigest()
    async with MemoryPlatform() as platform:
        handle = await platform.start(convert, text="n\nb\na\n")
        expected = {"rows": 2, "path": f"{digest[:8]}.xml", "size": len(DOCUMENT), "digest": digest}
        assert await handle.result() == expected


async def test_a_crash_anywhere_changes_nothing() -> None:
    await assert_crash_safe(convert, text="n\nb\na\n")
