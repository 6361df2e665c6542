"""The app with TLS of its own."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.certificates import Certificates, make_certificates
from tests.upload.harness import PATIENCE, app_command, environment


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@contextmanager
def running(*options: str) -> Iterator[str]:
    """The app's URL."""
    with subprocess.Popen(app_command(*options), env=environment(), stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().split()[-1]
        finally:
            process.terminate()
            process.wait(PATIENCE)


def curl(*arguments: str) -> str:
    command = ["curl", "-sS", "--max-time", str(PATIENCE), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("workers", ["1", "2"])
def test_app_speaks_tls(tmp_path: Path, certificates: Certificates, workers: str) -> None:
    files = ("--certificate", str(certificates.certificate), "--key", str(certificates.key))
    with running("--dir", str(tmp_path), "--workers", workers, *files) as url:
        assert url.startswith("https://127.0.0.1:")
        trust = ("--cacert", str(certificates.authority))
        assert curl(*trust, f"{url}health") == '{"status":"ok"}'
        assert "<title>" in curl(*trust, url)
        assert "log in first" in curl(*trust, "-T", str(certificates.authority), f"{url}upload/authority")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--certificate", "nowhere.pem"], "coro: cannot serve TLS with nowhere.pem: No such file or directory\n"),
        (["--key", "key.pem"], "coro: --key needs the --certificate that it belongs to\n"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(tmp_path: Path, options: Sequence[str], said: str) -> None:
    done = subprocess.run(
        app_command("--dir", str(tmp_path), *options), env=environment(), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (1, "", said)
