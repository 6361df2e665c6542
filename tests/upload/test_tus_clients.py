"""Resumable uploads by clients that others wrote, as they are."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import aiotus
import pytest
from tusclient import client as tuspy

from tests.services import CHECKOUT
from tests.upload.harness import PATIENCE, App

NODE_MODULES = CHECKOUT / ".cache" / "node" / "node_modules"
DATA = os.urandom(3_000_000)
PIECE_SIZE = 500_000  # aiohttp warns of larger ones
SHA256 = hashlib.sha256(DATA).hexdigest()


class User:
    def __init__(self, app: App) -> None:
        self.app = app
        self.session = app.log_in()
        host, port = app.address
        self.endpoint = f"http://{host}:{port}/files/"
        self.headers = {"Cookie": f"session={self.session}"}

    def uploads(self) -> list[tuple[str, int, str]]:
        listed = self.app.ask("GET", "/uploads", session=self.session).json["uploads"]
        return [(upload["name"], upload["size"], upload["sha256"]) for upload in listed]


@pytest.fixture
def user(app: App) -> User:
    return User(app)


# --- tuspy ------------------------------------------------------------------------------------------


def test_tuspy_uploads_in_pieces(user: User) -> None:
    client = tuspy.TusClient(user.endpoint, user.headers)
    uploader = client.uploader(file_stream=io.BytesIO(DATA), chunk_size=1_000_000, metadata={"filename": "a.bin"})
    uploader.upload()
    assert user.uploads() == [("a.bin", len(DATA), SHA256)]


def test_tuspy_without_metadata_sends_an_empty_field(user: User) -> None:
    tuspy.TusClient(user.endpoint, user.headers).uploader(file_stream=io.BytesIO(DATA)).upload()
    assert user.uploads() == [("upload", len(DATA), SHA256)]


def test_tuspy_resumes_and_sends_checksums(user: User) -> None:
    client = tuspy.TusClient(user.endpoint, user.headers)
    first = client.uploader(file_stream=io.BytesIO(DATA), chunk_size=1_000_000, upload_checksum=True)
    first.upload_chunk()  # type: ignore[no-untyped-call]
    again = client.uploader(file_stream=io.BytesIO(DATA), chunk_size=1_000_000, url=first.url, upload_checksum=True)
    assert again.offset == 1_000_000
    again.upload()
    assert user.uploads() == [("upload", len(DATA), SHA256)]


# --- aiotus -----------------------------------------------------------------------------------------


def test_aiotus_uploads(user: User) -> None:
    upload = aiotus.upload(
        user.endpoint, io.BytesIO(DATA), {"filename": b"a.bin"}, headers=user.headers, chunksize=PIECE_SIZE
    )
    location = asyncio.run(upload)
    assert location is not None
    assert user.uploads() == [("a.bin", len(DATA), SHA256)]
    assert asyncio.run(aiotus.metadata(location, headers=user.headers)) == {"filename": b"a.bin"}


def test_aiotus_joins_parts(user: User) -> None:
    half = len(DATA) // 2
    files = [io.BytesIO(DATA[:half]), io.BytesIO(DATA[half:])]
    upload = aiotus.upload_multiple(
        user.endpoint, files, {"filename": b"joined"}, headers=user.headers, chunksize=PIECE_SIZE
    )
    assert asyncio.run(upload) is not None
    assert user.uploads() == [("joined", len(DATA), SHA256)]


# --- tus-js-client, in Node -------------------------------------------------------------------------

SCRIPT = """
const tus = require("tus-js-client")
const fs = require("fs")
const { Readable } = require("stream")
const [endpoint, cookie, path, more] = process.argv.slice(1)
const options = JSON.parse(more)
const stopAt = options.stopAt
const pieces = data => Array.from({ length: data.length / 50000 }, (_, n) => data.subarray(n * 50000, (n + 1) * 50000))
const data = fs.readFileSync(path)
const upload = new tus.Upload(options.stream ? Readable.from(pieces(data), { objectMode: false }) : data, {
    endpoint, headers: { Cookie: cookie }, metadata: { filename: "a.bin" }, retryDelays: [0, 100, 300], ...options,
    onError(error) { console.error(String(error)); process.exit(1) },
    onSuccess() { console.log(upload.url) },
    onChunkComplete(size, accepted) {
        if (stopAt && accepted >= stopAt) upload.abort().then(() => { console.log(upload.url); process.exit(0) })
    },
})
upload.start()
"""


def run_tus_js(user: User, folder: Path, data: bytes = DATA, **options: Any) -> str:
    """Upload by tus-js-client; the upload's URL."""
    assert NODE_MODULES.is_dir(), "tus-js-client is not installed: run `make test-env`"
    (folder / "a.bin").write_bytes(data)
    arguments = [user.endpoint, user.headers["Cookie"], str(folder / "a.bin"), json.dumps(options)]
    done = subprocess.run(
        ["node", "-e", SCRIPT, *arguments], env={**os.environ, "NODE_PATH": str(NODE_MODULES)},
        capture_output=True, text=True, timeout=PATIENCE,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.strip()


@pytest.mark.parametrize("options", [
    {},
    {"chunkSize": 700_000},
    {"uploadDataDuringCreation": True},
    {"parallelUploads": 3},
    {"overridePatchMethod": True},
    {"stream": True, "chunkSize": 700_000, "uploadLengthDeferred": True},
], ids=lambda options: ", ".join(options) or "plain")  # fmt: skip
def test_tus_js_client_uploads(user: User, tmp_path: Path, options: dict[str, Any]) -> None:
    assert run_tus_js(user, tmp_path, **options)
    assert user.uploads() == [("a.bin", len(DATA), SHA256)]


def test_tus_js_client_uploads_an_empty_file(user: User, tmp_path: Path) -> None:
    assert run_tus_js(user, tmp_path, b"")
    assert user.uploads() == [("a.bin", 0, hashlib.sha256().hexdigest())]


def test_tus_js_client_resumes(user: User, tmp_path: Path) -> None:
    url = run_tus_js(user, tmp_path, chunkSize=1_000_000, stopAt=1_000_000)
    assert user.uploads() == []
    run_tus_js(user, tmp_path, uploadUrl=url)
    assert user.uploads() == [("a.bin", len(DATA), SHA256)]
