"""The whole stack with its documents in a real S3."""

import hashlib
from pathlib import Path

import pytest

from pagemesh_cli.stack.background import Supervised
from pagemesh_cli.stack.credentials import load_admin_key
from pagemesh_cli.stack.layout import DataDir
from tests.conftest import stack_environment
from tests.edge import files
from tests.edge.calling import Edge
from tests.edge.conftest import UPLOAD
from tests.s3_server import S3Server

pytestmark = pytest.mark.timeout(300)
EXTRACT = "pagemesh.extractor.v1.ExtractorService/ExtractPages"
DELETE = "pagemesh.extractor.v1.ExtractorService/DeleteDocument"
SUMMARIZE = "pagemesh.summarizer.v1.SummarizerService/Summarize"


def test_documents_live_in_s3_and_are_gone_from_it(short_dir: Path, s3_server: S3Server, s3_bucket: str) -> None:
    data, content = DataDir(short_dir / "data"), files.good()
    environment = stack_environment(
        PAGEMESH_OBJECT_STORE_URL=f"s3://{s3_bucket}/documents",
        PAGEMESH_OBJECT_STORE_ENCRYPTION="AES256",
        PAGEMESH_OBJECT_STORE_CLASS="STANDARD_IA",
        **s3_server.environment,
    )
    with Supervised(data.root, port=0, rate_limits=False, environment=environment) as running:
        admin = load_admin_key(data)
        assert admin is not None
        edge = Edge("localhost", running.state.ports["edge"], data.ca_file)
        uploaded = edge.json(UPLOAD, {}, admin.secret, body=content)
        assert uploaded.http == 200, uploaded
        name = uploaded.messages[0]["document"]["name"]
        (key,) = s3_server.keys(s3_bucket)
        assert key == f"documents/{admin.tenant}/{hashlib.sha256(content).hexdigest()}"
        head = s3_server.client.head_object(Bucket=s3_bucket, Key=key)
        assert (head["ServerSideEncryption"], head["StorageClass"]) == ("AES256", "STANDARD_IA")
        pages = edge.grpc(EXTRACT, {"name": name}, admin.secret)
        assert [next(iter(event)) for event in pages.messages] == ["start", "page", "page", "page", "end"]
        assert edge.json(SUMMARIZE, {"document": name}, admin.secret).http == 200
        deleted = edge.json(DELETE, {"name": name}, admin.secret)
        assert deleted.messages[0]["receipt"]["objectsDeleted"] == 1
        assert s3_server.keys(s3_bucket) == set()
