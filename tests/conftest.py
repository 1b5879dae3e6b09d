"""Set-up of all tests: the CPU, and programs compiled once, kept between runs."""

from pathlib import Path

import jax

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_compilation_cache_dir", str(Path(__file__).parents[1] / ".cache" / "tests"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
# Most of the time goes into compiling, little into running.
jax.config.update("jax_disable_most_optimizations", True)
