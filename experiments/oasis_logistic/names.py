"""What is compared, and what it costs. Without torch: measures and figures use it too."""

from dataclasses import dataclass

TUNED = ("GD", "Adam", "AdaHessian", "OASIS, fixed")  # each at its best rate for every problem
UNTUNED = ("OASIS", "AdGD")  # one setting for all problems
SAME_BATCH = ("OASIS, same batch", "AdGD, same batch")  # mini-batches: gradients are compared on one batch
QUASI_NEWTON = "L-BFGS"


@dataclass(frozen=True)
class Price:
    """Gradients, in work, of a step and, beyond that, of the first; a Hessian-vector product is two (its operation count)."""

    step: float
    first: float = 0.0

    def of(self, steps):
        """Gradients' work of so many steps, a number or an array; no step costs nothing."""
        return self.step * steps + self.first * (steps > 0)


WARM_UP = 10  # estimates at OASIS' first step, nine more than at any other
PRICES = {
    "GD": Price(1),
    "Adam": Price(1),
    "AdGD": Price(1),
    "AdGD, same batch": Price(2, -1),  # at the first step there is nothing to compare
    "AdaHessian": Price(3),
    "OASIS": Price(3, 2 * (WARM_UP - 1)),
    "OASIS, fixed": Price(3, 2 * (WARM_UP - 1)),
    "OASIS, same batch": Price(4, 2 * (WARM_UP - 1) - 1),
    "L-BFGS": Price(1),  # its steps are counted in evaluations of f and g
}
