"""How long to wait before the API server is tried again."""

from __future__ import annotations

import random

STEADY_SECONDS = 5.0
"""A watch that ends sooner has failed, also when it ended well: it must not be begun again and again."""
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.2, 8.0
"""The longest is how long a server may be back without being heard."""


class Pauses:
    """Twice as long after each try that failed; up to half of it is cut off by chance, so that not all come at once."""

    def __init__(self) -> None:
        """Nothing has failed."""
        self.failures = 0

    def after(self, lasted_seconds: float = 0.0, *, is_failure: bool = True) -> float:
        """Seconds to wait after a watch that was open for so long, or after a request."""
        if lasted_seconds >= STEADY_SECONDS:
            self.failures = 0
            if not is_failure:
                return 0.0
        longest = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * float(1 << min(self.failures, 16)))
        self.failures += 1
        return longest * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, hides nothing
