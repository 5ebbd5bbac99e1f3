"""`firstview demo`: everything on one machine, so that a miss is seen to become a hit."""
