"""The toy models are at hand for every test of the exports, whatever folder it stands in."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def toy_models() -> ModuleType:
    """tests/export/toy_models.py: `classifier`, `verifier` and `foreign` build small ONNX files."""
    if (known := sys.modules.get("toy_models")) is not None:
        return known
    spec = importlib.util.spec_from_file_location("toy_models", Path(__file__).with_name("toy_models.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["toy_models"] = module
    spec.loader.exec_module(module)
    return module
