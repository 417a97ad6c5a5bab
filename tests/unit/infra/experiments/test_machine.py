"""The description of the machine of a measurement."""

import os

import numpy as np
import pytest
import torch

from infra.experiments.machine import device, resident_mib


def test_resident_memory_grows_by_touched_pages() -> None:
    before = resident_mib()
    touched = np.ones(64 * 2**20, np.uint8)
    assert resident_mib() - before == pytest.approx(64, rel=0.25)
    assert resident_mib(os.getpid()) == pytest.approx(resident_mib(), rel=0.1)
    assert touched.all()


def test_device_without_gpu_is_the_processor_with_its_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    assert device().endswith(f", 3 of {os.cpu_count()} threads")


def test_device_with_gpu_is_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")
    assert device() == "a GPU"
