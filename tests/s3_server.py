"""A real S3 server: moto in a process of its own, as its users reach it."""

import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import boto3
from botocore.config import Config

from pagemesh_cli.stack.ports import pick_free_port
from pagemesh_cli.stack.process import wait_until

KEY = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": "us-east-1"}


@dataclass
class S3Server:
    """A running server. Buckets are made by `client`."""

    port: int

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """What an S3 client needs to find it and to be let in."""
        return {**KEY, "AWS_ENDPOINT": self.endpoint, "AWS_ALLOW_HTTP": "true"}

    @property
    def client(self) -> Any:
        """boto3's, to look at what is stored."""
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=KEY["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=KEY["AWS_SECRET_ACCESS_KEY"],
            region_name=KEY["AWS_REGION"],
            config=Config(retries={"max_attempts": 0}),
        )

    def keys(self, bucket: str) -> set[str]:
        """The objects of a bucket."""
        return {entry["Key"] for entry in self.client.list_objects_v2(Bucket=bucket).get("Contents", [])}

    def answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.endpoint}/moto-api/", timeout=1):  # our own server
                return True
        except (urllib.error.URLError, OSError):
            return False


@contextmanager
def running(*, strict: bool = False) -> Iterator[S3Server]:
    """A server that holds nothing yet; a strict one knows no key at all, and refuses."""
    server = S3Server(pick_free_port())
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(server.port)]
    environment = {**os.environ, **({"INITIAL_NO_AUTH_ACTION_COUNT": "0"} if strict else {})}
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    try:
        assert wait_until(server.answers, timeout_s=30)
        yield server
    finally:
        process.terminate()
        process.wait(10)
