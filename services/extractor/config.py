"""Settings of the extractor, from the environment."""

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from services.runtime.config import Address, CommaList, HostPort, RuntimeSettings

_MIB = 1024 * 1024


def _absolute(path: Path) -> Path:
    if not path.is_absolute():
        raise ValueError("write it as an absolute path")
    return path


class ExtractorSettings(RuntimeSettings):
    """Every setting is PAGEMESH_ and its name in capitals."""

    grpc_listen: Address = HostPort(host="127.0.0.1", port=7002)
    http_listen: Address = HostPort(host="127.0.0.1", port=7102)
    peers: CommaList = ("edge", "summarizer", "operator")
    object_store_url: Annotated[str, Field(pattern=r"^(file:///|s3://[a-z0-9])")]
    """Where documents are kept: `file:///absolute/path` or `s3://bucket/prefix` (credentials as for any S3 client)."""
    object_store_encryption: Annotated[str, Field(pattern=r"^(off|AES256|aws:kms(:[\w:/.-]+)?)$")] = "off"
    """How S3 encrypts what is stored: not asked for, with its own key, or with a KMS key (`aws:kms:KEY`)."""
    object_store_class: Annotated[str, Field(pattern=r"^[A-Z_]*$")] = ""
    """Storage class of uploads in S3, such as `STANDARD_IA`; empty is the bucket's own."""
    summarizer_target: Annotated[str, Field(pattern=r"^([a-z0-9+.-]+:///?)?[^\s/]+:\d{1,5}$")]
    """A gRPC target, such as `dns:///summarizer:7000`: it erases what it made of documents that are deleted."""
    ledger_target: Annotated[str, Field(pattern=r"^([a-z0-9+.-]+:///?)?[^\s/]+:\d{1,5}$")]
    """A gRPC target, such as `dns:///ledger:7000`: it keeps the audit trail."""
    spool_dir: Annotated[Path, AfterValidator(_absolute)]
    """Folder of this process alone for uploads on their way in and for what is read from S3; a real disk, at least
    max_uploads times max_upload_bytes, and with S3 1 GiB more."""
    max_upload_bytes: Annotated[int, Field(ge=1, le=4096 * _MIB)] = 50 * _MIB
    """Largest document."""
    max_uploads: Annotated[int, Field(ge=1, le=1000)] = 32
    """Uploads at a time; a quarter of them for one tenant."""
    max_pages: Annotated[int, Field(ge=1, le=1_000_000)] = 20_000
    """Documents with more pages are not extracted."""
    max_pixels: Annotated[int, Field(ge=1_000_000, le=4_000_000_000)] = 100_000_000
    """Images with more pixels are neither read nor drawn."""
    parser_processes: Annotated[int, Field(ge=1, le=256)] = os.cpu_count() or 1
    """Extractions that are parsed at a time."""
    parser_memory_bytes: Annotated[int, Field(ge=192 * _MIB)] = 768 * _MIB
    """Resident memory of one parser process; MuPDF itself takes about 60 MiB of it."""
    page_timeout_s: Annotated[float, Field(ge=0.1, le=120)] = 5.0
    """CPU time for opening a file and for each page; on the clock it may take one and a half times that."""
    ocr_processes: Annotated[int, Field(ge=0, le=256)] = os.cpu_count() or 1
    """Pages whose picture is read for text at a time; 0 leaves text recognition out."""
    parser_sandbox: Literal["on", "off"] = "on"
    """With `on` the service does not start on Linux where the kernel refuses the parsers' filter of system calls; with
    `off` it goes on with the limits alone, and says so. Elsewhere there is no filter to be had."""
