"""What the capabilities of the SFTP agent take and give."""

from typing import Literal

from pydantic import Field

from ..models import Data, Inputs, Outputs

Format = Literal["text", "base64"]


class ListFiles(Inputs):
    """A folder."""

    path: str = Field(description="The folder to list.", examples=["/data/inbox"])


class DownloadFile(Inputs):
    """A file to read."""

    path: str = Field(description="The file to read.", examples=["/data/inbox/orders.csv"])
    response_format: Format = Field(default="text", description="Text (UTF-8), or base64 for anything else.")


class UploadFile(Inputs):
    """A file to write."""

    path: str = Field(description="Where the file goes; one that is there is replaced.", examples=["/data/out/a.csv"])
    content: Data = Field(description="What it is to hold: text or base64, an array of bytes, or a file object.")
    content_format: Format = Field(default="text", description="How a content that is a text is meant.")


class DeleteFile(Inputs):
    """A file to delete."""

    path: str = Field(description="The file to delete.", examples=["/data/inbox/orders.csv"])


class FileInfo(Outputs):
    """An entry of a folder."""

    name: str
    path: str
    size: int = Field(description="In bytes.")
    is_directory: bool
    modified_time: int | None = Field(description="Seconds since 1970.")


class Deleted(Outputs):
    """What became of a file that was to be deleted."""

    success: bool = Field(description="Whether it was there; in both cases it is not any more.")
    path: str
