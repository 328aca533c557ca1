"""JSON without NaN and infinities: it has no word for them, so they become null."""

import math
from typing import Any

from flask.json.provider import DefaultJSONProvider


class FiniteJSONProvider(DefaultJSONProvider):
    """Writes JSON, the members in the order they are given in."""

    sort_keys = False

    def dumps(self, obj: Any, **kwargs: Any) -> str:
        """As Flask's, numbers that are none as null."""
        kwargs["allow_nan"] = False
        try:
            return super().dumps(obj, **kwargs)
        except ValueError:
            return super().dumps(null_non_finite(obj), **kwargs)


def null_non_finite(value: Any) -> Any:
    """Give the same without numbers that are none."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: null_non_finite(inner) for name, inner in value.items()}
    return [null_non_finite(inner) for inner in value] if isinstance(value, list | tuple) else value
