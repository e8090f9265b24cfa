"""Work that looks for something in documents, as options say it: fields, or the answer to a question."""

from pathlib import Path

from google.protobuf import json_format

from pagemesh.summarizer.v1 import answer_pb2, fields_pb2, job_pb2, job_work_pb2
from pagemesh_cli.failures import ExitCode, Failure
from pagemesh_cli.verbs.anonymising import Kinds
from pagemesh_cli.verbs.fields import read_schema
from pagemesh_cli.verbs.ranges import one_range


def looking(
    schema: str, ask: str, model: str, ocr_model: str, kinds: Kinds | tuple[()], *, pages: str = ""
) -> job_pb2.JobWork:
    """The work of finding fields, on some of the pages, or of answering a question. Raises Failure for both, for pages
    without fields, and for a schema that cannot be read."""
    if schema and ask:
        raise Failure("Say --schema or --ask, not both.", ExitCode.USAGE, "BAD_ARGUMENTS")
    if pages and not schema:
        raise Failure("--pages is for fields: say --schema too.", ExitCode.USAGE, "BAD_ARGUMENTS")
    if ask:
        options = answer_pb2.AnswerOptions(model=model, anonymise=kinds)
        return job_pb2.JobWork(ask=job_work_pb2.AskWork(question=ask, options=options))
    looked = fields_pb2.FieldOptions(model=model, ocr_model=ocr_model, anonymise=kinds)
    fields = job_work_pb2.ExtractFieldsWork(options=looked)
    fields.first_page, fields.last_page = one_range(pages)
    if schema.startswith("schemas/"):
        fields.schema = schema
    else:
        json_format.ParseDict(read_schema(Path(schema)), fields.json_schema)
    return job_pb2.JobWork(extract_fields=fields)
