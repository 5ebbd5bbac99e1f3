"""Scripts that keep the project: run by hand or by make, never by the product."""
