"""What makes a number evidence: parameters, records with provenance, statistics, verdicts.

torch is imported inside functions alone, but for beside.py and leased.py, which run networks side by side.
"""
