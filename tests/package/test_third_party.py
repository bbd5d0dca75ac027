"""The third-party notice and the label of images follow from what is installed."""

import importlib.util
import sys

import pytest

from tests.conftest import ROOT


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="written with the packages of 3.11")
def test_notice_and_label_are_those_of_the_packages() -> None:
    spec = importlib.util.spec_from_file_location("third_party", ROOT / "tools/third_party.py")
    third_party = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(third_party)
    cure = "run: .venv/bin/python tools/third_party.py"

    assert third_party.PAGE.read_text(encoding="utf-8") == third_party.page(), cure
    assert third_party.dockerfile_label() == third_party.label(), cure
    assert {"GPL-2.0-or-later", "LGPL-2.1-only"} <= set(third_party.label().split(" AND "))
