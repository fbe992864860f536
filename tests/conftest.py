"""Strict numerics for every test, and compiles that are short.

No dtype or rank is promoted silently. Machine code that runs for a moment is not optimised, and
within a session no program is compiled twice: compiling is most of the suite's time.
"""

import os
import tempfile

os.environ["XLA_FLAGS"] = (
    f"{os.environ.get('XLA_FLAGS', '')} --xla_backend_optimization_level=0".strip()
)

import jax
import pytest

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

_compiled = tempfile.TemporaryDirectory(prefix="sgdlab-compiled-")
jax.config.update("jax_compilation_cache_dir", _compiled.name)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def pytest_addoption(parser):
    parser.addoption("--full", action="store_true", help="what has a long form runs in it")


@pytest.fixture(scope="session")
def long_form(request):
    """Whether tests that draw many cases draw all that is promised, not the few that CI has."""
    return request.config.getoption("--full")
