"""Importing Feast through `features.feast_import` leaves torch out, but keeps it if the program has it already."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("imports", "has_torch"),
    [("features.store", False), ("torch, features.feast_import", True), ("features.feast_import, torch", True)],
)
def test_feast_does_not_import_torch(imports: str, has_torch: bool) -> None:
    code = f"import sys, {imports}; print('feast' in sys.modules, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == f"True {has_torch}\n"


def test_feast_is_imported_without_runtime_type_checks() -> None:
    code = (
        "import features.feast_import, feast, typeguard; "
        "print('typeguard' in feast.Field.__init__.__code__.co_names, typeguard.typechecked.__name__)"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False typechecked\n"
