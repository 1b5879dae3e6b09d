"""Set-up of all tests: the CPU, and programs compiled once, kept between runs."""

import gc

from compiling import compile_quickly

compile_quickly()  # before jax is imported
# Tracing makes many objects, and JAX does work of its own at each collection.
gc.set_threshold(50_000, 20, 50)
