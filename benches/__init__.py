"""Whole queries, measured as ratios: ``make bench``, or ``python -m benches`` in the checkout."""
