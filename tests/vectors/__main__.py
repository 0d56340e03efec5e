"""`python -m tests.vectors`: write the golden vectors beside this file."""

import json
from pathlib import Path

from tests.vectors.generate import vectors

for name, cases in vectors().items():
    path = Path(__file__).with_name(f"{name}.json")
    path.write_text(json.dumps(cases, indent=1) + "\n", encoding="utf-8")
