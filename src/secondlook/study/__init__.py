"""What makes a number evidence: parameters, records with provenance, statistics, verdicts. Nothing here imports torch."""
