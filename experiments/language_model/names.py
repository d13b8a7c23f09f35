"""Names of the methods, and which has whose learning rate. Without torch: measures and figures use them too."""

TUNED = ("SGD", "Adam", "AdamW", "AdaHessian", "AdaHessian power 0.5", "Sophia-G")  # each with a learning rate of its own
BLOCKS = (2, 4, 8, 16, 32)  # entries that are averaged; sizes beside 1 of AdaHessian's Table 7 that divide every parameter here


def block(size: int) -> str:
    """The name of AdaHessian that averages blocks of `size` entries."""
    return "AdaHessian" if size == 1 else f"AdaHessian block {size}"


def tuned_as(method: str) -> str:
    """The method whose learning rate `method` has: whatever the size of its blocks, AdaHessian's."""
    return method if method in TUNED else "AdaHessian"
