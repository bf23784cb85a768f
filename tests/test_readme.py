"""What the README says of the demo is what the kept report says."""

import json
from pathlib import Path

from pmexp_analysis.pages.readme import block, with_block

ROOT = Path(__file__).parents[1]


def test_the_readme_shows_the_kept_report() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    report = json.loads((ROOT / "docs" / "results" / "demo.json").read_text(encoding="utf-8"))
    assert with_block(readme, block(report)) == readme
    assert (ROOT / "docs" / "results" / "demo.png").stat().st_size > 10_000
