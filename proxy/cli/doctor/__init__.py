"""`firstview doctor`: one check a file; each tries, a judgement beside it says what that means."""
