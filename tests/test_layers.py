"""Arrows point one way."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
LINT_IMPORTS = Path(sys.executable).with_name("lint-imports")


def lint_imports(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [LINT_IMPORTS, "--no-cache", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=100
    )


def test_every_import_points_the_way_that_the_contracts_say() -> None:
    done = lint_imports()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 kept, 0 broken" in done.stdout


def test_the_check_can_fail(tmp_path: Path) -> None:
    contracts = tmp_path / "importlinter.ini"
    contracts.write_text(
        "[importlinter]\nroot_packages =\n  chain\n  replicator\n  failover\n"
        "[importlinter:contract:upside-down]\nname = upside down\ntype = layers\n"
        "layers =\n  chain\n  replicator\n  failover\n"
    )
    done = lint_imports("--config", str(contracts))
    assert done.returncode == 1
    assert "upside down BROKEN" in done.stdout
