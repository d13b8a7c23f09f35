"""The methods of the training cases, by how often they estimate the factors of K-FAC."""

FACTORS_EVERY = {"K-FAC": 1, "K-FAC every 10": 10}  # steps
METHODS = ("SGD", *FACTORS_EVERY)
