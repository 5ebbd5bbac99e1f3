"""firstview: a pull-through CDN origin for AI video."""

__version__ = "0.1.0"
