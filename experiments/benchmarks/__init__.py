"""Sections of ``benchmark.py``, one module each.

A section is a module with

* ``NEEDS``: packages without which it is skipped;
* ``cases(settings)``: what is measured, one JSON-able dict a case; devices are not touched;
* ``measure(settings, case)``: yields rows, ``row(...)`` or ``skipped(...)`` of ``benchmarks.rows``; runs in a
  process of its own, so that compilation, memory and the number of fake devices of a case are its own;
* ``describe(case, results)``: what was measured and the figure, in words;
* ``DETAILS``: the ``part`` of cases that the README's table leaves out.

A new one is such a module and a line in ``sections.py``. ``report.py`` keeps the rows, ``plots.py`` draws them;
programs in ``peer_libraries`` are run by the interpreter of another library and import nothing of jaxrec.
"""
