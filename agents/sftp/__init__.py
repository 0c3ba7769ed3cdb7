"""The SFTP agent: files on other machines, over SSH, from and to servers whose key is known."""

from .agent import Sftp
from .models import Deleted, DeleteFile, DownloadFile, FileInfo, ListFiles, UploadFile

__all__ = ["DeleteFile", "Deleted", "DownloadFile", "FileInfo", "ListFiles", "Sftp", "UploadFile"]
