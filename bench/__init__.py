"""Side-by-side measurements against nginx; `python -m bench --help`."""
