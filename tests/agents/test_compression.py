"""The agent `compression`: what is packed comes out again, and what would do harm does not."""

import base64
import gzip
import io
import stat
import tarfile
import zipfile
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.perform import code_of, perform, refused

FORMATS = ("zip", "tar.gz")


def encoded(content: bytes) -> str:
    return base64.b64encode(content).decode()


def create(files: dict[str, bytes], **options: object) -> dict[str, Any]:
    inputs = [{"file": {"content": encoded(content)}, "path": path} for path, content in files.items()]
    return cast("dict[str, Any]", perform("compression", "create-archive", {"files": inputs, **options}))


def extract(archive: object, **options: object) -> dict[str, bytes]:
    found = cast("dict[str, Any]", perform("compression", "extract-archive", {"archive": archive, **options}))
    assert found["count"] == len(found["files"])
    return {one["path"]: base64.b64decode(one["file"]["content"]) for one in found["files"]}


def zipped(*entries: tuple[str | zipfile.ZipInfo, bytes], method: int = zipfile.ZIP_DEFLATED) -> str:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for info, content in entries:
            archive.writestr(info, content)
    return encoded(out.getvalue())


def tarred(*entries: tuple[tarfile.TarInfo, bytes]) -> str:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for info, content in entries:
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return encoded(out.getvalue())


def tar_entry(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def zip_entry(name: str, mode: int = stat.S_IFREG | 0o644) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr, info.create_system = mode << 16, 3
    return info


@pytest.mark.parametrize("form", FORMATS)
def test_files_come_out_as_they_went_in(form: str) -> None:
    files = {"data/a.csv": b"a,b\n", "data/ü 世.bin": bytes(range(256)), "empty": b""}
    archive = create(files, format=form, compressionLevel=9, archiveName="x")
    assert archive["filename"] == "x"
    assert extract(archive) == files
    assert extract(archive["content"], format=form) == files
    assert extract(list(base64.b64decode(archive["content"]))) == files
    one = perform("compression", "extract-file", {"archive": archive, "filePath": "data/a.csv"})
    assert one == {"content": encoded(b"a,b\n"), "filename": "a.csv", "mimeType": "text/csv"}
    listing = cast("dict[str, Any]", perform("compression", "list-archive", {"archive": archive}))
    assert (listing["total_count"], listing["total_size"], listing["format"]) == (3, 260, form)
    assert [entry["path"] for entry in listing["entries"]] == list(files)
    assert [entry["size"] for entry in listing["entries"]] == [4, 256, 0]
    assert all((entry["compressed_size"] is None) == (form == "tar.gz") for entry in listing["entries"])


@pytest.mark.parametrize(("form", "name"), [("zip", "archive.zip"), ("tgz", "archive.tar.gz")])
def test_the_same_files_give_the_same_archive(form: str, name: str) -> None:
    one, other = (create({"a": b"x" * 1_000}, format=form) for _ in range(2))
    assert one == other
    assert one["filename"] == name


def test_a_files_path_is_its_name_unless_given_and_texts_are_texts() -> None:
    files = [
        {"file": {"content": "YQ==", "filename": "a.txt"}},
        {"file": "some words"},
        {"file": [98], "path": "./b//c.txt"},
    ]
    archive = perform("compression", "create-archive", {"files": files})
    assert extract(archive) == {"a.txt": b"a", "file": b"some words", "b/c.txt": b"b"}


def test_folders_are_listed_and_are_no_files() -> None:
    for archive in (
        zipped(("d/", b""), ("d/x", b"1")),
        tarred(
            (tar_entry("./", tarfile.DIRTYPE), b""), (tar_entry("./d/", tarfile.DIRTYPE), b""), (tar_entry("d/x"), b"1")
        ),
    ):
        assert extract(archive) == {"d": b"", "d/x": b"1"}
        found = cast("dict[str, Any]", perform("compression", "extract-archive", {"archive": archive}))
        assert [one["is_directory"] for one in found["files"]] == [True, False]
        assert (
            refused("compression", "extract-file", {"archive": archive, "file_path": "d"}).code
            == "ARCHIVE_IS_DIRECTORY"
        )
    archive = zipped(("d/x", b"1"))
    assert (
        refused("compression", "extract-file", {"archive": archive, "file_path": "d/"}).code == "ARCHIVE_IS_DIRECTORY"
    )
    assert perform("compression", "extract-file", {"archive": archive, "file_path": "\\d\\x"}) is not None


PATHS = ["../x", "a/../../x", "/etc/x", "C:\\x", "C:/x", "a\\..\\x", "..", ".", "", "a\x1bb", "a\nb", "x" * 1_025]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("form", FORMATS)
def test_paths_that_lead_elsewhere_are_refused_on_the_way_in(path: str, form: str) -> None:
    inputs = {"files": [{"file": "x", "path": path}], "format": form}
    assert refused("compression", "create-archive", inputs).code == "ARCHIVE_UNSAFE_PATH"


@pytest.mark.parametrize("path", ["../x", "a/../../x", "/etc/x", "C:\\x", "C:/x", "a\\..\\x", "a\x1bb", "a\nb"])
@pytest.mark.parametrize("capability", ["extract-archive", "list-archive", "extract-file"])
def test_paths_that_lead_elsewhere_are_refused_on_the_way_out(path: str, capability: str) -> None:
    for archive in (zipped(("ok", b"1"), (path, b"x")), tarred((tar_entry("ok"), b"1"), (tar_entry(path), b"x"))):
        inputs = {"archive": archive, **({"file_path": "ok"} if capability == "extract-file" else {})}
        assert refused("compression", capability, inputs).code == "ARCHIVE_UNSAFE_PATH"


@pytest.mark.parametrize(
    ("one", "other"), [("a", "a"), ("a", "./a"), ("A", "a"), ("a", "a/b"), ("a/b", "a"), ("é", "e\u0301")]
)
@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")  # zipfile's own, while the bad archive is made
def test_two_files_of_one_name_are_refused(one: str, other: str) -> None:
    for archive in (zipped((one, b"1"), (other, b"2")), tarred((tar_entry(one), b"1"), (tar_entry(other), b"2"))):
        assert refused("compression", "extract-archive", {"archive": archive}).code == "ARCHIVE_DUPLICATE_PATH"
    files = [{"file": "x", "path": one}, {"file": "y", "path": other}]
    assert refused("compression", "create-archive", {"files": files}).code == "ARCHIVE_DUPLICATE_PATH"


@pytest.mark.parametrize(
    "archive",
    [
        zipped((zip_entry("link", stat.S_IFLNK | 0o777), b"/etc/passwd")),
        zipped((zip_entry("pipe", stat.S_IFIFO | 0o644), b"")),
        zipped(("a", b"x" * 100), method=zipfile.ZIP_LZMA),
        zipped(("a", b"x" * 100), method=zipfile.ZIP_BZIP2),
        tarred((tar_entry("link", tarfile.SYMTYPE, "/etc/passwd"), b"")),
        tarred((tar_entry("a"), b"x"), (tar_entry("link", tarfile.LNKTYPE, "a"), b"")),
        tarred((tar_entry("dev", tarfile.CHRTYPE), b"")),
        tarred((tar_entry("pipe", tarfile.FIFOTYPE), b"")),
    ],
)
@pytest.mark.parametrize("capability", ["extract-archive", "list-archive"])
def test_entries_that_are_no_plain_files_are_refused(archive: str, capability: str) -> None:
    assert refused("compression", capability, {"archive": archive}).code == "ARCHIVE_UNSAFE_ENTRY"


def test_encrypted_files_are_refused() -> None:
    content = bytearray(base64.b64decode(zipped(("a", b"x"))))
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(signature) + offset] |= 1
    assert (
        refused("compression", "extract-archive", {"archive": encoded(bytes(content))}).code == "ARCHIVE_UNSAFE_ENTRY"
    )


def test_bombs_are_refused_before_they_go_off() -> None:
    zeros = bytes(50 * 1024 * 1024)
    for archive in (
        zipped(("a", zeros)),
        tarred((tar_entry("a"), zeros)),
        zipped(*((f"{n}", zeros[: 2**20]) for n in range(9))),
    ):
        assert len(archive) < 100_000
        assert refused("compression", "extract-archive", {"archive": archive}).code == "ARCHIVE_TOO_LARGE"
    nested = gzip.compress(gzip.compress(zeros))
    assert refused("compression", "extract-archive", {"archive": encoded(nested)}).code == "ARCHIVE_READ_ERROR"


def test_a_header_that_is_a_bomb_is_refused() -> None:
    info = tar_entry("a")
    info.pax_headers = {"comment": "x" * (20 * 1024 * 1024)}
    archive = tarred((info, b""))
    assert len(archive) < 100_000
    for capability in ("extract-archive", "list-archive"):
        assert refused("compression", capability, {"archive": archive}).code == "ARCHIVE_TOO_LARGE"


def test_a_size_that_is_a_lie_is_found_out() -> None:
    content = bytearray(base64.b64decode(zipped(("a", b"x" * 1_000))))
    directory = content.index(b"PK\x01\x02")
    content[directory + 24 : directory + 28] = (10).to_bytes(4, "little")
    assert refused("compression", "extract-archive", {"archive": encoded(bytes(content))}).code == "ARCHIVE_READ_ERROR"


def test_more_entries_than_any_archive_needs_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtara.agents.compression.bounds.ENTRIES", 3)
    files = {str(n): b"" for n in range(3)}
    assert extract(create(files)) == files
    assert (
        refused("compression", "list-archive", {"archive": zipped(*((str(n), b"") for n in range(4)))}).code
        == "ARCHIVE_TOO_LARGE"
    )


def test_more_content_than_the_platform_carries_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtara.agents.compression.agent.CONTENT_BYTES", 10)
    assert refused("compression", "create-archive", {"files": [{"file": "x" * 11}]}).code == "ARCHIVE_TOO_LARGE"


@pytest.mark.parametrize(
    ("capability", "inputs", "code"),
    [
        ("create-archive", {"files": []}, "ARCHIVE_NO_FILES"),
        ("create-archive", {"files": None}, "STEP_REQUIRED_INPUT_NULL"),
        ("create-archive", {"files": [{"file": "x"}], "format": "rar"}, "STEP_INVALID_INPUT"),
        ("create-archive", {"files": [{"file": "x"}], "compression_level": 10}, "STEP_INVALID_INPUT"),
        ("create-archive", {"files": [{"file": {"content": "?"}}]}, "AGENT_INVALID_DATA"),
        ("extract-archive", {"archive": "not base64!"}, "AGENT_INVALID_DATA"),
        ("extract-archive", {"archive": encoded(b"Rar!\x1a\x07\x00")}, "ARCHIVE_UNKNOWN_FORMAT"),
        ("extract-archive", {"archive": ""}, "ARCHIVE_UNKNOWN_FORMAT"),
        ("extract-archive", {"archive": encoded(b"PK\x03\x04 and no more")}, "ARCHIVE_READ_ERROR"),
        ("extract-archive", {"archive": encoded(b"\x1f\x8b and no more")}, "ARCHIVE_READ_ERROR"),
        ("extract-archive", {"archive": zipped(("a", b"x")), "format": "tar.gz"}, "ARCHIVE_READ_ERROR"),
        ("extract-file", {"archive": zipped(("a", b"x")), "file_path": "b"}, "ARCHIVE_FILE_NOT_FOUND"),
        ("extract-file", {"archive": zipped(("a", b"x")), "file_path": "../a"}, "ARCHIVE_UNSAFE_PATH"),
        ("extract-file", {"archive": zipped(("a", b"x"))}, "STEP_REQUIRED_INPUT_MISSING"),
    ],
)
def test_what_each_capability_refuses(capability: str, inputs: dict[str, object], code: str) -> None:
    assert refused("compression", capability, inputs).code == code


names = st.text(st.sampled_from("abc.-_ üñ世😀"), min_size=1, max_size=6).filter(lambda name: name.strip(".") != "")
paths = st.lists(names, min_size=1, max_size=3).map("/".join)


@given(
    st.dictionaries(paths, st.binary(max_size=300), min_size=1, max_size=4), st.sampled_from(FORMATS), st.integers(0, 9)
)
def test_archives_round_trip(files: dict[str, bytes], form: str, level: int) -> None:
    inputs = {"files": [{"file": content, "path": path} for path, content in files.items()], "format": form}
    if code_of("compression", "create-archive", inputs) is None:
        archive = create(files, format=form, compression_level=level)
        assert extract(archive) == files
    else:  # two of them differ in case only, or one lies within another
        assert refused("compression", "create-archive", inputs).code == "ARCHIVE_DUPLICATE_PATH"


@given(st.sampled_from(FORMATS), st.integers(0, 10_000), st.binary(min_size=1, max_size=4), st.booleans())
def test_no_bytes_do_anything_but_come_out_or_be_refused(form: str, at: int, change: bytes, cut: bool) -> None:
    content = base64.b64decode(create({"a/b": b"some content", "c": bytes(500)}, format=form)["content"])
    at %= len(content)
    broken = content[:at] + (b"" if cut else change + content[at + len(change) :])
    for capability in ("extract-archive", "list-archive"):
        code = code_of("compression", capability, {"archive": encoded(broken), "format": form})
        assert code is None or code.startswith("ARCHIVE_")
