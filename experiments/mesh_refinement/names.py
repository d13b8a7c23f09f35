"""Names of families, policies and markings, as rows and figures have them."""

FAMILIES = ("steps", "bumps", "circles")
POLICIES = (
    "independent",
    "message passing",
)  # what a network sees: a cell alone with its corners, or its neighbours' states too
ESTIMATORS = ("ZZ", "ZZ, L2", "ZZ, bulk", "jumps")  # recovered gradients in the energy norm, in L2, marked in bulk; jumps
INSTANT = ("ZZ, L2", "jumps")  # estimators that transport is tried with
UPSTREAM = {name: f"{name}, upstream" for name in INSTANT}  # the same, which look where the policy does
PRESENT = "policy, present"  # sees what the policy sees, and was trained for the present error
BELOW = ("uniform", "random")
ORACLE = "true error"
FORESIGHT = "true error, ahead"
OPTIMISERS = ("Adam", "AdaHessian")
SIZES = ("as trained", "larger")
