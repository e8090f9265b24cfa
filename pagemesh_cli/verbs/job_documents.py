"""The documents that jobs are about, and the files that they are given as."""

from pathlib import Path

from pagemesh_cli.client import STREAM_TIMEOUT_S, Client
from pagemesh_cli.failures import ExitCode, Failure
from pagemesh_cli.output import Output
from pagemesh_cli.verbs.upload import DOCUMENT, files_of, upload_file

LARGEST_BATCH = 10_000


def stored(client: Client, output: Output, paths: list[str]) -> dict[str, str]:
    """Documents with what people call them, in their order; files are uploaded."""
    names = [path for path in paths if DOCUMENT.match(path)]
    files = list(files_of([Path(path) for path in paths if not DOCUMENT.match(path)]))
    if len(names) + len(files) > LARGEST_BATCH:
        raise Failure(f"A batch has at most {LARGEST_BATCH:,} documents.", ExitCode.USAGE, "BATCH_TOO_LARGE")
    titles = dict.fromkeys(names, "")
    for number, file in enumerate(files, start=1):
        stored = upload_file(client, output, file, timeout_s=STREAM_TIMEOUT_S, number=number, of=len(files))
        titles[stored.document.name] = file.name
    return {document: title or document for document, title in titles.items()}
