"""The client's parts that need no server: where it connects, what ranges mean, how failures are told."""

import datetime as dt
import json
import re
from pathlib import Path
from typing import Any

import grpc
import pytest
import typer
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2

from pagemesh.common.v1 import money_pb2, page_pb2
from pagemesh.summarizer.v1 import summary_pb2
from pagemesh_cli.connection import resolve
from pagemesh_cli.failures import ExitCode, Failure, from_rpc_error, from_status
from pagemesh_cli.output import Output, printable
from pagemesh_cli.verbs.demo import check_promises
from pagemesh_cli.verbs.money import money
from pagemesh_cli.verbs.ranges import LAST, page_ranges, told
from pagemesh_cli.verbs.times import duration, moment


def test_options_come_before_variables(tmp_path: Path) -> None:
    ca = tmp_path / "ca.crt"
    ca.write_bytes(b"PEM")
    variables = {"PAGEMESH_URL": "https://one.example:1", "PAGEMESH_API_KEY": "pm_one", "PAGEMESH_CA_FILE": str(ca)}
    found = resolve(url=None, key=None, ca_file=None, data_dir=tmp_path, environment=variables)
    assert (found.target, found.key, found.ca, found.local) == ("one.example:1", "pm_one", b"PEM", False)
    found = resolve(url="https://localhost", key="pm_two", ca_file=None, data_dir=tmp_path, environment=variables)
    assert (found.target, found.key, found.local) == ("localhost:443", "pm_two", True)
    assert "pm_two" not in repr(found)


@pytest.mark.parametrize(
    "url", ["http://localhost:8443", "localhost:8443", "https://", "https://a/b", "https://u:p@a", "https://a:99999"]
)
def test_only_tls_addresses(url: str, tmp_path: Path) -> None:
    with pytest.raises(Failure) as caught:
        resolve(url=url, key="k", ca_file=None, data_dir=tmp_path, environment={})
    assert caught.value.exit_code is ExitCode.USAGE
    assert caught.value.reason == "BAD_URL"


def test_ipv6_addresses(tmp_path: Path) -> None:
    found = resolve(url="https://[::1]:8443", key="k", ca_file=None, data_dir=tmp_path, environment={})
    assert found.target == "[::1]:8443"


def test_the_local_key_goes_nowhere_else(tmp_path: Path) -> None:
    (tmp_path / "admin.json").write_text(json.dumps({"tenant": "local", "api_key": "apiKeys/x", "secret": "pm_x"}))
    with pytest.raises(Failure) as caught:
        resolve(url="https://elsewhere.example", key=None, ca_file=None, data_dir=tmp_path, environment={})
    assert caught.value.reason == "NO_KEY"
    assert caught.value.exit_code is ExitCode.REFUSED


def test_a_wrong_address_is_told_before_a_missing_key(tmp_path: Path) -> None:
    with pytest.raises(Failure) as caught:
        resolve(url="http://elsewhere.example", key=None, ca_file=None, data_dir=tmp_path, environment={})
    assert caught.value.reason == "BAD_URL"


def test_no_stack_and_no_address(tmp_path: Path) -> None:
    with pytest.raises(Failure) as caught:
        resolve(url=None, key="k", ca_file=None, data_dir=tmp_path, environment={})
    assert caught.value.exit_code is ExitCode.UNREACHABLE


def test_a_ca_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(Failure) as caught:
        resolve(url="https://a", key="k", ca_file=tmp_path / "none", data_dir=tmp_path, environment={})
    assert caught.value.reason == "BAD_CA_FILE"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("3", [(3, 3)]),
        ("1-5", [(1, 5)]),
        ("7-", [(7, LAST)]),
        ("-4", [(1, 4)]),
        ("-", [(1, LAST)]),
        ("12,3-7", [(3, 7), (12, 12)]),
        ("3-7, 5-9,10,12", [(3, 10), (12, 12)]),
        ("4,4,4-4", [(4, 4)]),
        ("7-,2,900-1000", [(2, 2), (7, LAST)]),
        (",".join(map(str, range(1, 500))), [(1, 499)]),
    ],
)
def test_page_ranges(text: str, wanted: list[tuple[int, int]]) -> None:
    assert [(found.first, found.last) for found in page_ranges(text)] == wanted


@pytest.mark.parametrize(
    "text", ["", "0", "5-1", "a", "1-2-3", "1,", ",", "1,,2", "-0", "1 2", ",".join(map(str, range(1, 103, 2)))]
)
def test_no_page_ranges(text: str) -> None:
    with pytest.raises(Failure) as caught:
        page_ranges(text)
    assert caught.value.exit_code is ExitCode.USAGE


def test_pages_are_told_as_ranges() -> None:
    assert told([7, 3, 4, 5]) == "3-5, 7"
    assert told(list(range(1, 999, 2))).count(",") == 498


def test_durations() -> None:
    assert duration("90d").days == 90
    assert duration("30m").total_seconds() == 1800
    for text in ("", "0h", "3w", "-1d", "1.5h"):
        with pytest.raises(Failure):
            duration(text)


def status(code: int, *details: Message) -> status_pb2.Status:
    packed = []
    for detail in details:
        item = any_pb2.Any()
        item.Pack(detail)
        packed.append(item)
    return status_pb2.Status(code=code, message="words", details=packed)


@pytest.mark.parametrize(
    ("code", "wanted"),
    [
        (code_pb2.INVALID_ARGUMENT, ExitCode.USAGE),
        (code_pb2.UNAVAILABLE, ExitCode.UNREACHABLE),
        (code_pb2.UNAUTHENTICATED, ExitCode.REFUSED),
        (code_pb2.PERMISSION_DENIED, ExitCode.REFUSED),
        (code_pb2.NOT_FOUND, ExitCode.NOT_FOUND),
        (code_pb2.RESOURCE_EXHAUSTED, ExitCode.LIMIT),
        (code_pb2.DEADLINE_EXCEEDED, ExitCode.TIMED_OUT),
        (code_pb2.CANCELLED, ExitCode.INTERRUPTED),
        (code_pb2.INTERNAL, ExitCode.FAILED),
        (code_pb2.FAILED_PRECONDITION, ExitCode.FAILED),
    ],
)
def test_exit_codes(code: int, wanted: ExitCode) -> None:
    assert from_status(status(code), request_id="r").exit_code is wanted


class CutOff(grpc.RpcError, grpc.Call):
    """What gRPC makes of a stream that the edge resets because the service behind it was killed."""

    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.INTERNAL

    def details(self) -> str:
        return "Stream removed (RST_STREAM with error code 2)"

    def initial_metadata(self) -> tuple[tuple[str, str], ...]:
        return (("x-request-id", "r-1"),)

    def trailing_metadata(self) -> Any:
        return ()


def test_an_answer_that_is_cut_off_is_no_fault_of_the_service() -> None:
    failure = from_rpc_error(CutOff())  # type: ignore[abstract]  # what is not asked for is not there
    assert (failure.exit_code, failure.reason, failure.request_id) == (ExitCode.UNREACHABLE, "UNAVAILABLE", "r-1")
    assert "pagemesh status" in failure.advice


def test_a_failure_tells_reason_field_advice_and_request_id(capsys: pytest.CaptureFixture[str]) -> None:
    violation = error_details_pb2.BadRequest.FieldViolation(field="options.focus", description="is too long")
    failure = from_status(
        status(
            code_pb2.INVALID_ARGUMENT,
            error_details_pb2.ErrorInfo(reason="BAD_FIELD", domain="pagemesh"),
            error_details_pb2.BadRequest(field_violations=[violation]),
            error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(seconds=3)),
        ),
        request_id="request-1",
    )
    Output().failure(failure)
    told = capsys.readouterr()
    assert told.out == ""
    for part in ("BAD_FIELD: words", "options.focus: is too long", "Try again in 3 s", "request-1"):
        assert part in told.err
    Output(as_json=True).failure(failure)
    told = capsys.readouterr()
    assert told.out == ""
    assert json.loads(told.err)["error"] == {
        "reason": "BAD_FIELD",
        "message": "words",
        "fields": {"options.focus": "is too long"},
        "advice": "Try again in 3 s.",
        "requestId": "request-1",
        "exitCode": 2,
    }


@pytest.mark.parametrize(
    ("field", "message", "lines"),
    [
        ("a.b", "a.b: is wrong", 1),
        ("a.b", "is wrong", 2),
        ("a.b", "The request has faults.", 2),
    ],
)
def test_no_sentence_is_said_twice(capsys: pytest.CaptureFixture[str], field: str, message: str, lines: int) -> None:
    Output().failure(Failure(message, fields={field: "is wrong"}))
    told = capsys.readouterr().err
    assert told.count("is wrong") == 1
    assert told.count("a.b") == 1
    assert len(told.splitlines()) == lines


@pytest.mark.parametrize("reason", ["PROVIDER_UNAVAILABLE", "PROVIDER_CUT", "BREAKER_OPEN"])
def test_advice_is_about_who_failed(reason: str) -> None:
    info = error_details_pb2.ErrorInfo(reason=reason, domain="pagemesh")
    failure = from_status(status(code_pb2.UNAVAILABLE, info), request_id="r")
    assert failure.exit_code is ExitCode.UNREACHABLE
    assert failure.advice
    assert "Is the stack up?" not in failure.advice
    assert "Is the stack up?" in from_status(status(code_pb2.UNAVAILABLE), request_id="r").advice


def test_every_reason_of_a_provider_has_its_own_advice() -> None:
    explained = (Path(__file__).parents[2] / "docs" / "errors.md").read_text()
    for reason in set(re.findall(r"PROVIDER_[A-Z_]+", explained)):
        info = error_details_pb2.ErrorInfo(reason=reason, domain="pagemesh")
        assert "provider" in from_status(status(code_pb2.UNAVAILABLE, info), request_id="r").advice, reason


def test_points_in_time() -> None:
    assert moment("2026-01-31").isoformat() == "2026-01-31T00:00:00+00:00"
    assert moment("2026-01-31T08:00:00").isoformat() == "2026-01-31T08:00:00+00:00"
    assert moment("2026-01-31T08:00:00.250Z").isoformat() == "2026-01-31T08:00:00.250000+00:00"
    assert moment("2026-01-31T08:00:00.123456789Z").microsecond == 123456
    assert moment("2026-01-31T09:00:00+01:00") == moment("2026-01-31T08:00:00Z")
    before = dt.datetime.now(dt.UTC)
    assert before <= moment("12h") + dt.timedelta(hours=12) <= dt.datetime.now(dt.UTC)
    assert before <= moment("0m") <= dt.datetime.now(dt.UTC)
    for text in ("", "yesterday", "12", "0x", "2026-13-01"):
        with pytest.raises(typer.BadParameter):
            moment(text)


def test_money_is_exact() -> None:
    assert money(money_pb2.Money(currency="USD", micros=1_000_001)) == "1.000001 USD"
    assert money(money_pb2.Money(currency="EUR", micros=42)) == "0.000042 EUR"


def test_a_document_cannot_steer_the_terminal() -> None:
    assert printable("a\x1b[31mb\x07\u202ec\n\f") == "a\ufffd[31mb\ufffd\ufffdc\n\f"


def sentence(*, grounded: bool = True, quote: str = "q", boxes: int = 1) -> summary_pb2.SummarySentence:
    citation = summary_pb2.Citation(page=1, quote=quote, boxes=[page_pb2.BoundingBox()] * boxes)
    return summary_pb2.SummarySentence(text="t", citations=[citation], grounded=grounded)


def test_the_demo_believes_only_what_it_sees() -> None:
    used = summary_pb2.Consumption(usage_event_ids=["a"])
    good = summary_pb2.Summary(sentences=[sentence()], consumption=used)
    check_promises(good, recorded={"a"})
    broken = [
        (summary_pb2.Summary(consumption=used), {"a"}, "EMPTY_SUMMARY"),
        (summary_pb2.Summary(sentences=[sentence(grounded=False)], consumption=used), {"a"}, "UNGROUNDED"),
        (summary_pb2.Summary(sentences=[sentence(boxes=0)], consumption=used), {"a"}, "UNGROUNDED"),
        (summary_pb2.Summary(sentences=[sentence(quote="")], consumption=used), {"a"}, "UNGROUNDED"),
        (good, {"b"}, "UNRECORDED"),
        (summary_pb2.Summary(sentences=[sentence()]), set[str](), "UNRECORDED"),
    ]
    for summary, recorded, reason in broken:
        with pytest.raises(Failure) as caught:
            check_promises(summary, recorded=recorded)
        assert caught.value.reason == reason
