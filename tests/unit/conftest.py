"""Settings of every unit test."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

# How long an example takes says more of what else the machine does than of the code. The examples are the same in each
# run, so that a change fails for what it did; HYPOTHESIS_PROFILE=explore draws new ones.
_SLOW = [HealthCheck.too_slow]
settings.register_profile("same", deadline=None, suppress_health_check=_SLOW, derandomize=True)
settings.register_profile("explore", deadline=None, suppress_health_check=_SLOW, max_examples=2000, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))
