"""How the catalog's schema came to be, one file per step."""
