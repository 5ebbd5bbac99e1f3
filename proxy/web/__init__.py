"""HTTP: what a request means and what its reply says; never where the bytes come from."""
