"""Names of methods and metrics, and which method has whose learning rate. Without torch: measures and figures use them too."""

METRICS = ("test_accuracy", "test_loss", "train_loss", "seconds", "gradient_equivalents", "lr", "diverged")
OPTIMISERS = ("SGD", "Adam", "AdamW", "AdaHessian", "AdaHessian coupled")  # each with a learning rate of its own
STARTS = {0: "at full rate", 1: "gentle"}  # of a run, by its gentle epochs
PACE = "seconds of an epoch of all"  # optimisers, side by side on one device


def family(method: str) -> str:
    """The method whose learning rate `method` has: variants of AdaHessian take AdaHessian's."""
    return method if method in OPTIMISERS else "AdaHessian"


def every(k: int) -> str:
    """The name of AdaHessian with a Hessian every k steps."""
    return "AdaHessian" if k == 1 else f"AdaHessian every {k}"


def named(method: str, precision: str) -> str:
    """The name of a method in the rows of a precision; float32 goes without saying."""
    return method if precision == "float32" else f"{method}, {precision}"
