"""What all tests share: one set of seeds, no network, and a way to say that nothing may be skipped."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["LANGUAGE"] = "en"  # messages are asserted in English, whatever the machine speaks
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tests run side by side; torch would take every core for each

settings.register_profile("pellucid", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("pellucid")

CACHE = Path(__file__).parents[1] / "cache"


@pytest.fixture(scope="session")
def shakespeare() -> bytes:
    """All 42 plays and poems, in the order of their file names."""
    files = sorted((CACHE / "shakespeare").glob("*.txt"))
    if not files:
        pytest.skip("run `python tests/fetch.py` first, as `make test-all` does")
    return b"\n".join(file.read_bytes() for file in files)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--no-skips", action="store_true", help="fail when any test is skipped")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    skipped = _skipped(session.config)
    if skipped and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter, config: pytest.Config) -> None:
    for report in _skipped(config):
        terminalreporter.write_line(f"SKIPPED, and --no-skips admits none: {report.nodeid} {report.longrepr}", red=True)


def _skipped(config: pytest.Config) -> list:
    """Reports of skipped tests, in the process that prints them (with xdist: not the workers)."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if not config.getoption("--no-skips") or reporter is None:
        return []
    return reporter.stats.get("skipped", [])
