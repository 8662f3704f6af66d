"""What the tests of files that others wrote have in common."""

import logging
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True, scope="module")
def quiet() -> Iterator[None]:
    """`transformers` reports progress and advice that the tests do not need."""
    logger = logging.getLogger("transformers")
    level, propagate = logger.level, logger.propagate
    logger.setLevel(logging.ERROR)
    yield
    logger.setLevel(level)
    logger.propagate = propagate
