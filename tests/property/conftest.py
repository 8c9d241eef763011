"""How hard the property tests try: ``HYPOTHESIS_PROFILE=fuzz`` tries for minutes instead of seconds."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

# No deadline: the machines of a test run are shared, and a slow example says nothing about the code.
settings.register_profile("quick", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("fuzz", settings.get_profile("quick"), max_examples=2000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))
