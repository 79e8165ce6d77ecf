"""What several tests share. Import as `from helpers import ...`; pytest puts `test/` on the path."""

from __future__ import annotations

from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


def shared_folder(relative: str = "") -> Path:
    """The folder of large fixtures and recordings that lies beside the checkout, or skip the test.

    Args:
        relative: A path inside it that the test needs, for instance "fixtures/human3r".
    """
    path = REPOSITORY.parent / "shared" / relative
    if not path.exists():
        pytest.skip(f"needs ../shared/{relative} beside the checkout; it is not part of the repository")
    return path
