"""fetch weights: what comes has the published SHA-256, or does not come."""

import hashlib
from pathlib import Path

import pytest

import cli
from pipeline.commands._download_sources import source_of
from pipeline.commands.fetch_weights import Published, fetch, known
from pipeline.errors import DataError
from tests.fetching.web import serving

DATA = bytes(range(256)) * 40
SHA256 = hashlib.sha256(DATA).hexdigest()


@pytest.mark.parametrize("digits", [64, 8])
def test_a_file_comes_once_and_is_compared(digits: int, tmp_path: Path) -> None:
    with serving({"w.pt": DATA}) as web:
        published = Published("w.pt", web.url("plain/w.pt"), SHA256[:digits])

        path = fetch(published, tmp_path / "weights")
        fetch(published, tmp_path / "weights")

        assert web.requests("plain/w.pt") == 1
    assert path.read_bytes() == DATA
    assert [file.name for file in path.parent.iterdir()] == ["w.pt"]


def test_another_file_is_refused_and_not_kept(tmp_path: Path, capsys) -> None:
    with serving({"ViT-B-32.pt": DATA}) as web:
        url, out = web.url("plain/ViT-B-32.pt"), str(tmp_path / "weights")
        code = cli.main(["fetch", "weights", "ViT-B/32", "--out", out, "--url", url])

    assert code == 4 and "ViT-B-32.pt" in capsys.readouterr().err
    assert not (tmp_path / "weights" / "ViT-B-32.pt").exists()
    (tmp_path / "w.pt").write_bytes(b"another")
    with pytest.raises(DataError, match="its SHA-256 is"):
        fetch(Published("w.pt", "http://127.0.0.1:9/w.pt", SHA256), tmp_path)


def test_missing_weights_name_the_command_that_brings_them(tmp_path: Path, capsys) -> None:
    missing = tmp_path / "ViT-B-32.pt"

    assert "fetch weights ViT-B/16 (https://" in source_of(Path("data/weights/ViT-B-16.pt"))
    words = ["index", "--in", str(tmp_path), "--checkpoint", str(missing), "--out", "x"]
    assert cli.main(words) == 4
    assert f"fetch weights ViT-B/32 --out {tmp_path}" in capsys.readouterr().err
    assert {"ViT-B/32", "resnet152"} <= known().keys() and "tiny-random" not in known()
    assert cli.main(["fetch", "weights", "ViT-B/33"]) == 2
    assert "Did you mean ViT-B/32?" in capsys.readouterr().err
