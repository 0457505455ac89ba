"""A disk that fills up while a library writes, which raises anything but an OSError."""

import dataclasses
import resource
from contextlib import contextmanager

import pytest
import torch
from safetensors.torch import save_file

from dipscope.errors import DipscopeError
from dipscope.organism import base
from dipscope.workspace import writing


@contextmanager
def room(size):
    """No file may get longer than `size` bytes."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_what_a_library_says_of_a_full_disk_becomes_one_line(tmp_path):
    with pytest.raises(DipscopeError) as caught, room(1000), writing(tmp_path / "x"):
        save_file({"a": torch.zeros(10_000)}, tmp_path / "x")
    said = f"{tmp_path / 'x'}: cannot write (File too large). Free space or choose another --workspace"
    assert str(caught.value).startswith(said)
    assert caught.value.exit_code == 1


def test_other_errors_pass_as_they_are(tmp_path):
    with pytest.raises(ZeroDivisionError), writing(tmp_path):
        raise ZeroDivisionError("no (os error 1) at its end, so no error of the disk")


@pytest.mark.parametrize("size", [5_000, 50_000], ids=["tokenizer", "weights"])
def test_pretraining_says_that_the_disk_is_full_and_goes_on_when_it_is_not(tmp_path, monkeypatch, size):
    monkeypatch.setitem(base.SIZES, "XS", dataclasses.replace(base.SIZES["XS"], steps=2))
    out = tmp_path / "XS"
    with pytest.raises(DipscopeError, match=r"cannot write \(File too large\)\. Free space"), room(size):
        base.pretrain("XS", 0, out)
    assert not out.exists()
    assert not list(tmp_path.rglob("*.tmp"))
    base.pretrain("XS", 0, out)
    assert [p.name for p in tmp_path.iterdir()] == ["XS"]
    assert (out / "model.safetensors").is_file()
