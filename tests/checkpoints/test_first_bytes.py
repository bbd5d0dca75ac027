import zipfile
from pathlib import Path

import pytest
import torch

from pipeline.checkpoints import clip_weights
from pipeline.checkpoints.archive import read_archive
from pipeline.errors import DataError

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"7" * 64 + b"\nsize 605157884\n"
PAGE = b"\n<!DOCTYPE html>\n<html><head><title>Google Drive - Virus scan warning</title>"


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (LFS, r"a Git LFS pointer of a file of 605,157,884 bytes(.|\n)*git lfs pull"),
        (PAGE, r"a web page \(HTML\)"),
        (b"", "an empty file"),
        (b"Entry not found", 'a text that begins "Entry not found"'),
        (b"\x1f\x8b\x08" + bytes(40), "packed as gzip"),
    ],
)
def test_what_is_no_weights_is_called_by_its_name(
    content: bytes, said: str, suffix: str, tmp_path: Path
) -> None:
    file = tmp_path / f"weights{suffix}"
    file.write_bytes(content)

    with pytest.raises(DataError, match=said):
        clip_weights.read(file)


def test_cut_download_is_called_cut(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1000)}, tmp_path / "a.pt")
    whole = (tmp_path / "a.pt").read_bytes()
    (tmp_path / "a.pt").write_bytes(whole[: len(whole) // 2])

    with pytest.raises(DataError, match="cut short"):
        read_archive(tmp_path / "a.pt")


def test_zip_of_a_release_is_called_what_it_is(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "eclip.zip", "w") as archive:
        archive.writestr("eclip/ckpt.best.pth.tar", b"weights")
        archive.writestr("eclip/log.txt", b"text")

    with pytest.raises(
        DataError, match=r"zip archive of other files: eclip/ckpt\.best(.|\n)*Unpack"
    ):
        read_archive(tmp_path / "eclip.zip")
