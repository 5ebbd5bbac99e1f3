"""What holds for every test: where fixtures come from, and how hypothesis behaves.

The rest of the common ground lives in plugins of its own, one subject per file. A new file with
fixtures is added to `pytest_plugins`, and to nothing else.
"""

import math
import os

import structlog
from hypothesis import HealthCheck, settings

pytest_plugins = [
    "tests.fixtures.programs",
    "tests.fixtures.event_loop",
    "tests.fixtures.turns",
    "tests.fixtures.postgres",
    "tests.fixtures.s3",
    "tests.fixtures.truth",
    "tests.fixtures.fal",
    "tests.fixtures.bucket",
    "tests.fixtures.catalog",
    "tests.fixtures.gate",
    "tests.fixtures.origin",
    "tests.fixtures.company",
    "tests.fixtures.swept",
]


def pytest_xdist_auto_num_workers() -> int:
    """Half as many processes again as there are cores: a third of the time is waiting."""
    return math.ceil(1.5 * len(os.sched_getaffinity(0)))


# The default never fails by chance: the same examples each time, and no judgement by the clock.
settings.register_profile(
    "ci",
    deadline=None,
    derandomize=True,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
# New examples on every run, and many of them: HYPOTHESIS_PROFILE=explore make test
settings.register_profile(
    "explore", settings.get_profile("ci"), derandomize=False, max_examples=2000
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))

# What tests do not configure is written for people, but without reading the sources' files: the
# event loop would wait for the disk, which blockbuster does not let pass.
structlog.configure(
    processors=[
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.dev.set_exc_info,
        structlog.processors.TimeStamper(fmt="%H:%M:%S.%f", utc=False),
        structlog.dev.ConsoleRenderer(
            colors=False, exception_formatter=structlog.dev.plain_traceback
        ),
    ]
)
