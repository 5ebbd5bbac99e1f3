"""The tests. A test's name says which behaviour it proves."""
