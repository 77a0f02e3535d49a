"""The guide to a network of one's own: its code is a network that keeps the contract."""

import re
import sys
from pathlib import Path

import pytest

from hdkd_cli.models import build_model
from hdkd_cli.settings.networks import CustomModelSettings
from hdkd_cli.testing import check_network

GUIDE = Path(__file__).parents[1] / "docs" / "guide" / "your-network.md"


@pytest.fixture
def mynet(tmp_path, monkeypatch) -> str:
    """The first block of code of the guide, as a module that can be imported."""
    code, *_ = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    (tmp_path / "mynet.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "mynet", raising=False)
    yield code
    sys.modules.pop("mynet", None)


def test_the_network_of_the_guide_keeps_the_contract(mynet):
    settings = CustomModelSettings(name="mynet:build", exits=3, options={"width": 4})
    net = build_model(settings, num_classes=5, image_size=16)
    assert not check_network(net).failed
    assert all(stage.head_modules() for stage in net.stages)


def test_it_has_about_thirty_lines(mynet):
    assert len([line for line in mynet.splitlines() if line.strip()]) <= 35
