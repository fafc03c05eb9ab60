"""Shows what several processes have in common: the same rows of what users see, for each way to run several.

``python -m tests.shared`` makes the table, ``tests/integration/test_one_truth.py`` has each cell as a test.
"""
