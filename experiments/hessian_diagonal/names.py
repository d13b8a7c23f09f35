"""What the experiment and those who read its rows call the same."""

THEIRS = (  # estimates of other packages
    "curvlinops Hutchinson",
    "curvlinops XDiag",
    "BackPACK Hessian",
    "BackPACK Gauss-Newton",
    "BackPACK Gauss-Newton, drawn",
)
