"""Measures the renderer: ``python -m being_rt.bench``. See docs/cli.md, bench."""
