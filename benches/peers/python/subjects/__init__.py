"""Python's libraries as subjects of the benchmarks, a module for each group of cases.

A module has the function `run(library, case, options)`, which gives a dictionary with "value", "unit" and "checksum", or None for a
case that it does not have.
"""
