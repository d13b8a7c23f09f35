"""Functions whose minimum and Hessian are known."""
