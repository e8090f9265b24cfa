"""What it costs to refuse unknown fields of JSON: the same requests through two edges, with and without the filter.

Both are Envoys of this stack's configuration in front of the same services, in turns, from one client over HTTP/1.1.
The ratio is of a cached summary, the cheapest thing that people ask for with a body; the detail has large bodies too,
one text of a megabyte and ten thousand names, which the services refuse.
"""

import asyncio
import contextlib
import http.client
import json
import ssl
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import yaml

from bench.bench_cached_summary import SENTENCES, pdf
from bench.report import alternate_p50_us, report
from bench.running_stack import RunningStack, running_stack
from pagemesh_cli.stack.edge import EdgeAddresses, EdgeLimits, command, render
from pagemesh_cli.stack.ports import pick_free_port
from pagemesh_cli.stack.process import Process, ProcessSpec

ROUNDS = 600
LONG_ROUNDS = 60
# A script has to be entered and the body copied into it, once; the rest of the way is four processes long.
GOAL = 1.10
READY_S = 30.0


@contextlib.contextmanager
def edge(stack: RunningStack, name: str, *, strict: bool) -> Iterator[http.client.HTTPSConnection]:
    """A connection to an Envoy of its own, which has the filter or not."""
    port = pick_free_port()
    directory = stack.root / name
    config = render(
        directory,
        addresses=EdgeAddresses(
            listen=f"127.0.0.1:{port}",
            metrics_listen=f"127.0.0.1:{pick_free_port()}",
            ledger=f"127.0.0.1:{stack.ports['ledger']}",
            extractor=f"127.0.0.1:{stack.ports['extractor']}",
            summarizer=f"127.0.0.1:{stack.ports['summarizer']}",
            tls_dir=stack.tls_dir("edge"),
            access_log=directory / "access.log",
            trust_domain="pagemesh.local",
        ),
        limits=EdgeLimits.lifted(),
    )
    if not strict:
        _without_filter(config)
    process = Process(ProcessSpec(name, tuple(command(config)), directory / "envoy.log"))
    try:
        context = ssl.create_default_context(cafile=str(stack.ca_file))
        connection = http.client.HTTPSConnection("localhost", port, context=context, timeout=30)
        end = time.monotonic() + READY_S
        while not _ready(connection):
            if time.monotonic() > end:
                raise RuntimeError(f"{name} is not ready after {READY_S:g} s")
            time.sleep(0.05)
        yield connection
        connection.close()
    finally:
        process.stop()


def _without_filter(config: Path) -> None:
    tree = yaml.safe_load(config.read_text())
    manager = tree["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    manager["http_filters"] = [entry for entry in manager["http_filters"] if entry["name"] != "strict_json"]
    for route in manager["route_config"]["virtual_hosts"][0]["routes"]:
        route.get("typed_per_filter_config", {}).pop("strict_json", None)
    config.write_text(yaml.safe_dump(tree))


def _ready(connection: http.client.HTTPSConnection) -> bool:
    try:
        connection.request("GET", "/readyz")
        response = connection.getresponse()
        response.read()
    except OSError:
        connection.close()
        return False
    return response.status == http.client.OK


def sender(
    connection: http.client.HTTPSConnection, stack: RunningStack, path: str, body: bytes, status: int
) -> Callable[[], object]:
    """Makes a call that has to be answered with this status."""
    headers = {"authorization": f"Bearer {stack.key}", "content-type": "application/json"}

    async def send() -> None:
        connection.request("POST", path, body, headers)
        response = connection.getresponse()
        answer = response.read()
        if response.status != status:
            raise RuntimeError(f"{path}: {response.status} {answer[:300]!r}")

    return send


async def measure(
    stack: RunningStack, strict: http.client.HTTPSConnection, lenient: http.client.HTTPSConnection
) -> None:
    strict.request("POST", "/v1/documents:upload", pdf(SENTENCES), {"authorization": f"Bearer {stack.key}"})
    document = json.loads(strict.getresponse().read())["document"]["name"]
    bodies = {
        "cached_summary": (f"/v1/{document}:summarize", {"options": {"length": "SUMMARY_LENGTH_SHORT"}}, 200, ROUNDS),
        "one_text_of_1_mb": (f"/v1/{document}:summarize", {"options": {"focus": "x" * 1_000_000}}, 400, LONG_ROUNDS),
        "10000_names": (
            "/v1/jobs:batchCreate",
            {"documents": [f"documents/{number:032d}" for number in range(10_000)], "work": {}},
            400,
            LONG_ROUNDS,
        ),
    }
    ratios: dict[str, float] = {}
    detail: dict[str, object] = {}
    for name, (path, content, status, rounds) in bodies.items():
        calls = [sender(edge, stack, path, json.dumps(content).encode(), status) for edge in (strict, lenient)]
        with_us, without_us = await alternate_p50_us(rounds, *calls)  # type: ignore[arg-type]
        ratios[name] = with_us / without_us
        detail[name] = {
            "with_p50_us": round(with_us),
            "without_p50_us": round(without_us),
            "ratio": round(ratios[name], 3),
            "rounds": rounds,
        }
    report("json_fields_over_none", ratio=ratios["cached_summary"], goal=GOAL, better="lower", detail=detail)


def main() -> None:
    with (
        running_stack() as stack,
        edge(stack, "strict", strict=True) as strict,
        edge(stack, "lenient", strict=False) as lenient,
    ):
        asyncio.run(measure(stack, strict, lenient))


if __name__ == "__main__":
    main()
