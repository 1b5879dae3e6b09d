"""Parts of ``compare.py``: which models, their runs, what their figures say together, and how it is shown."""
