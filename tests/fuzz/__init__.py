"""Fuzzing: what holds for every input of the parsers that a stranger can reach.

Each target is a module with a function ``check``, which is given any bytes and raises AssertionError if a
property does not hold. ``scripts/fuzz`` runs them under atheris; the corpus beside them is run by the unit
tests, too.
"""
