"""What runs of the examples leave behind, for the tests of the examples."""

import json
from pathlib import Path
from typing import Any

EXAMPLES = Path(__file__).parents[2] / "examples"


def metrics(out: Path) -> dict[str, Any]:
    """The contents of metrics.json."""
    return json.loads((out / "metrics.json").read_text())
