"""Names of the methods. Without torch: measures and figures use them too."""

TUNED = ("SGD", "Adam", "AdamW", "AdaHessian", "Sophia-G")  # whose rates are tuned in two rounds
PEERS = ("Muon", "SOAP")  # what a user would pick today: context, with as many trials
BLOCKS = (2, 8, 32)  # entries that are averaged: sizes of AdaHessian's Table 7, beside 1, that divide every parameter here
AVERAGES = ("absolute", "signed")  # of |D|, as in the authors' code, and of D, as in the paper's Eq. 10


def block(size: int, averaging: str) -> str:
    """The name of AdaHessian that averages blocks of `size` entries."""
    return f"AdaHessian {averaging} block {size}"
