"""Results never go among the files that they are made from."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from cli import cli
from pipeline.errors import ConfigError


@pytest.mark.parametrize("out", ["videos", "videos/../videos"])
def test_out_that_is_the_input_is_refused_before_anything_is_created(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "a.mp4").write_bytes(b"x")

    result = CliRunner().invoke(cli, ["compress", "--in", "./videos", "--out", out])

    assert isinstance(result.exception, (ConfigError, SystemExit))
    assert [path.name for path in (tmp_path / "videos").iterdir()] == ["a.mp4"]
