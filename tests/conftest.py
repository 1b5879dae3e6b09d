"""Set-up of all tests: the CPU, and programs compiled once, kept between runs."""

from compiling import compile_quickly

compile_quickly()  # before jax is imported
