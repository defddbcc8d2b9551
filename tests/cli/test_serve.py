"""The verb as a user sees it: the address, one line per mistake, and a clean end."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.tiny import TINY
from unit.__main__ import main
from unit.cli.serve import _named
from unit.domains import PerDomain
from unit.model.networks import build_autoencoders
from unit.translation.translator import Translator


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("run") / "model.safetensors"
    Translator(build_autoencoders(TINY.model), TINY, PerDomain("sunny", "rainy"), 7, "cpu", "fp32").save(path)
    return path


UNFINISHED = b"POST /translate?direction=a2b HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nbody"


def address(url: str) -> tuple[str, int]:
    return "127.0.0.1", int(url.rpartition(":")[2])


@contextmanager
def served(*arguments: object) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server's process and address."""
    command = [sys.executable, "-m", "unit", "serve", *map(str, arguments), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, -signal.SIGTERM)])
def test_a_server_prints_its_address_answers_and_ends_cleanly(number: int, status: int, model: Path) -> None:
    with served(model.parent, model) as (process, url):
        assert url.startswith("http://127.0.0.1:")
        with urllib.request.urlopen(f"{url}/models", timeout=10) as answer:
            assert [found["name"] for found in json.load(answer)["models"]] == [
                model.parent.name,
                f"{model.parent.name}-2",
            ]
        idle = socket.create_connection(address(url))  # must not keep it from ending
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
        idle.close()
    assert process.returncode == status
    assert out == ""
    assert err.count("\n") == 1, "nothing had to be cut off"
    assert "Ctrl-C stops" in err


@pytest.mark.slow
def test_requests_in_progress_are_answered_before_the_end(model: Path) -> None:
    with served(model) as (process, url):
        with socket.create_connection(address(url)) as client:
            client.sendall(UNFINISHED)
            time.sleep(0.5)
            process.send_signal(signal.SIGINT)
            time.sleep(0.5)
            client.sendall(b" ends")
            assert client.recv(1000).startswith(b"HTTP/1.1 415 ")
        assert process.wait(timeout=60) == 130


@pytest.mark.slow
def test_a_second_ctrl_c_ends_it_at_once(model: Path) -> None:
    with served(model) as (process, url), socket.create_connection(address(url)) as client:
        client.sendall(UNFINISHED)
        time.sleep(0.5)
        for _ in range(2):
            process.send_signal(signal.SIGINT)
            time.sleep(0.5)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err


@pytest.mark.slow
def test_a_request_that_never_ends_does_not_keep_the_server(model: Path) -> None:
    with served(model) as (process, url):
        with socket.create_connection(address(url)) as client:
            client.sendall(UNFINISHED)
            time.sleep(0.5)
            process.send_signal(signal.SIGINT)
            answer = client.recv(1000)
        _, err = process.communicate(timeout=60)
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert process.returncode == 130
    assert "Traceback" not in err


def test_a_taken_port_is_one_line(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["serve", str(model), "--port", str(port)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"error: --host 127.0.0.1 --port {port}: Address already in use")
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["/nowhere"], "/nowhere"),
        (["MODEL", "/nowhere"], "/nowhere"),
        ([], "MODEL"),
        (["MODEL", "--port", "65536"], "--port"),
        (["MODEL", "--host", "no such host", "--port", "0"], "--host no such host"),
        (["MODEL", "--max_queue", "0"], "--max_queue"),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str], said: str, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", *(str(model) if text == "MODEL" else text for text in arguments)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    assert said in captured.err


@pytest.mark.parametrize("package", ["starlette", "uvicorn"])
def test_a_missing_package_is_one_line_with_the_command(
    package: str, model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    assert main(["serve", str(model)]) == 2
    assert capsys.readouterr().err == f"error: the package {package} is not installed; pip install starlette uvicorn\n"


def test_models_are_named_by_their_runs_or_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    paths = ["runs/one", "runs/one/", "runs/two/model.safetensors", "runs/two/best.safetensors", "other/one", "."]
    names = ["one", "one-2", "two", "best", "one-3", tmp_path.name]
    assert list(_named([Path(path) for path in paths])) == names
