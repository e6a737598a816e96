"""Results as JSON knows them."""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from runner.plain import plain


@dataclass
class Told:
    value: float
    where: Path


def test_all_that_is_held_becomes_what_json_knows():
    value = {
        1: (math.nan, 2.5, -math.inf),
        "array": np.array([1.0, np.nan]),
        "integer": np.int64(7),
        "flag": np.True_,
        "told": Told(math.inf, Path("a/b")),
        "none": None,
        "text": "NaN",
    }
    assert json.loads(json.dumps(plain(value), allow_nan=False)) == {
        "1": [None, 2.5, None],
        "array": [1.0, None],
        "integer": 7,
        "flag": True,
        "told": {"value": None, "where": str(Path("a/b"))},
        "none": None,
        "text": "NaN",
    }
