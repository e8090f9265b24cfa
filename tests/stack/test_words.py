"""What the command says to people: numbers with their words, what was not found, and what to do about a failure."""

import os
import shlex
import subprocess
from pathlib import Path

import pytest
from google.protobuf import struct_pb2

from pagemesh.summarizer.v1 import estimate_pb2, fields_pb2, job_estimates_pb2, job_pb2
from pagemesh_cli.counting import counted
from pagemesh_cli.failures import Failure
from pagemesh_cli.new_file import refuse_without_folder
from pagemesh_cli.output import Output
from pagemesh_cli.stack.credentials import load_admin_key
from pagemesh_cli.stack.layout import DataDir
from pagemesh_cli.verbs.fields import print_extraction
from pagemesh_cli.verbs.job_estimates import estimate_jobs
from pagemesh_cli.verbs.upload import files_of, upload_file
from tests.conftest import RunningStack
from tests.stack.conftest import Edge
from tests.stack.running import Command
from tests.stack.scripted_edge import Script

NOTHING = struct_pb2.Value(null_value=struct_pb2.NULL_VALUE)


def test_one_is_singular() -> None:
    assert [counted(count, "page") for count in (0, 1, 2, 1000)] == ["0 pages", "1 page", "2 pages", "1,000 pages"]
    assert [counted(count, "was", "were") for count in (1, 2)] == ["1 was", "2 were"]


def found(*fields: fields_pb2.ExtractedField, missing: tuple[str, ...] = ()) -> fields_pb2.Extraction:
    return fields_pb2.Extraction(fields=fields, missing_required=missing, valid=True)


def printed(extraction: fields_pb2.Extraction, capsys: pytest.CaptureFixture[str], *wanted: str) -> list[str]:
    print_extraction(Output(), extraction, wanted=wanted)
    return capsys.readouterr().out.split("\n\n")[0].splitlines()


def test_a_field_that_was_not_found_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    total = fields_pb2.ExtractedField(pointer="/total/amount", value=struct_pb2.Value(number_value=3), confidence=1)
    none = fields_pb2.ExtractedField(pointer="/iban", value=NOTHING)
    told = printed(found(total, none, missing=("/vat",)), capsys, "total", "iban", "vat", "a/b")
    assert told == [
        "/total/amount: 3.0  (confidence 1.00)",
        "     not grounded: nothing like it was found in the document",
        "/iban: not found",
        "/a~1b: not found",
        "! /vat is required and was not found",
    ]
    assert printed(found(), capsys) == ["none of the fields was found"], "of a schema that is kept on the server"


def test_an_estimate_of_what_is_in_the_cache_tells_no_pages(capsys: pytest.CaptureFixture[str]) -> None:
    document = f"documents/{'1' * 32}"
    cached = job_estimates_pb2.JobEstimate(document=document, estimate=estimate_pb2.Estimate(cached=True))

    class Jobs:
        EstimateJobs = None

    class Client:
        jobs = Jobs
        request_id = "r"

        def unary(self, *_: object, **__: object) -> job_estimates_pb2.EstimateJobsResponse:
            return job_estimates_pb2.EstimateJobsResponse(jobs=[cached])

    estimate_jobs(Client(), Output(), job_pb2.JobWork(), {document: "a.pdf"})  # type: ignore[arg-type]  # all it uses
    assert f"{document}  free  its answer is in the cache  a.pdf\n" in capsys.readouterr().out


def advice_of(what: object) -> str:
    with pytest.raises(Failure) as failed:
        what()  # type: ignore[operator]
    assert failed.value.exit_code in {1, 2}
    return failed.value.advice


def test_what_cannot_be_read_or_written_says_what_to_do(tmp_path: Path) -> None:
    def upload(path: Path) -> object:
        class Client:
            def paced(self, send: object, **_: object) -> object:
                return path.read_bytes()

        return lambda: upload_file(Client(), Output(), path, timeout_s=1)  # type: ignore[arg-type]  # all it uses

    assert "jobs submit" in advice_of(upload(tmp_path))
    assert "documents list" in advice_of(upload(Path("documents/xyz")))
    assert "Name a file" in advice_of(upload(Path("nowhere.pdf")))
    assert ".jpeg" in advice_of(lambda: list(files_of([tmp_path])))
    assert "Make it first" in advice_of(lambda: refuse_without_folder(tmp_path / "none" / "a.md"))
    refuse_without_folder(Path("a.md"))


def test_a_picture_is_not_named_after_another_format(edge: Edge, tmp_path: Path) -> None:
    refused = edge(Script())("render", f"documents/{'1' * 32}", "-o", str(tmp_path / "a.gif"), "--json")
    assert (refused.code, refused.error["reason"]) == (2, "BAD_OUTPUT")
    assert ".png" in refused.error["advice"]


def test_search_is_given_names_of_documents(edge: Edge) -> None:
    refused = edge(Script())("search", "net", "--document", "report.pdf", "--json")
    assert (refused.code, refused.error["reason"]) == (2, "BAD_NAME")
    assert "documents list" in refused.error["advice"]


def test_a_shell_gets_the_key_of_a_stack_that_was_there_before(stack: RunningStack) -> None:
    told = Command.on(stack.data.root)("up", "--detach")
    assert told.code == 0, told.err
    key = load_admin_key(DataDir(stack.data.root))
    assert key is not None
    assert key.secret not in told.out
    lines = told.out.splitlines()
    assert [line.split("=")[0] for line in lines] == ["export URL", "export CA", "export KEY"]
    said = subprocess.run(
        ["/bin/sh", "-c", f'{told.out} echo "$KEY"'], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    assert said.stdout.strip() == key.secret
    assert shlex.split(lines[1])[1] == f"CA={stack.data.ca_file}"
