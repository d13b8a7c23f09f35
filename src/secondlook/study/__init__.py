"""What makes a number evidence: parameters, records with provenance, statistics, verdicts.

Only needs.py and doctor.py import torch, inside functions, to ask which devices there are.
"""
