"""The article's rules word for word, mistakes included. Each yields w after every step; `w` is a float or a tensor.

Only names differ from print: rho, beta1, beta2, lr and eps stand for the article's r, delta1, delta2, learning_rate and e.
Where the article leaves a state undefined before the loop, it starts at zero.
"""

import torch


def momentum(gradient, w, steps, lr, rho):
    """'Velocity is computed as the running mean of gradients': a sum, without the factor (1 - rho) of a mean."""
    v = 0 * w
    for _ in range(steps):
        dw = gradient(w)
        v = rho * v + dw
        w = w - lr * v
        yield w


def nesterov(gradient, w, steps, lr, rho):
    """The text asks for the gradient where the velocity leads; the code takes it at w."""
    v = 0 * w
    for _ in range(steps):
        dw = gradient(w)
        v = rho * v - lr * dw
        w = w + v
        yield w


def look_ahead(gradient, w, steps, lr, rho):
    """Not the article's code but its text: the gradient at w + rho v. Yields that point, which is torch's parameter."""
    v = 0 * w
    for _ in range(steps):
        dw = gradient(w + rho * v)
        v = rho * v - lr * dw
        w = w + v
        yield w + rho * v


def adagrad(gradient, w, steps, lr, eps):
    squared_gradients = 0 * w
    for _ in range(steps):
        dw = gradient(w)
        squared_gradients += dw * dw
        w = w - lr * dw / (squared_gradients.sqrt() + eps)
        yield w


RMSPROP_LINE = "w = w - learning_rate * (dw/(squared_gradients.sqrt() + e)"  # as printed


def rmsprop(gradient, w, steps, lr, beta2, eps):
    """With the missing parenthesis of RMSPROP_LINE added."""
    squared_gradients = 0 * w
    for _ in range(steps):
        dw = gradient(w)
        squared_gradients = beta2 * squared_gradients + (1 - beta2) * dw * dw
        w = w - lr * (dw / (squared_gradients.sqrt() + eps))
        yield w


def adam_uncorrected(gradient, w, steps, lr, beta1, beta2, eps):
    moment1 = moment2 = 0 * w
    for _ in range(steps):
        dw = gradient(w)
        moment1 = beta1 * moment1 + (1 - beta1) * dw
        moment2 = beta2 * moment2 + (1 - beta2) * dw * dw
        w = w - lr * moment1 / (moment2**0.5 + eps)
        yield w


def adam(gradient, w, steps, lr, beta1, beta2, eps, first=0):
    """As printed, t starts at 0. With `first=1` it is Adam."""
    moment1 = moment2 = 0 * w
    for t in range(first, first + steps):
        dw = gradient(w)
        moment1 = beta1 * moment1 + (1 - beta1) * dw
        moment2 = beta2 * moment2 + (1 - beta2) * dw * dw
        moment1_unbiased = moment1 / (1 - beta1**t)
        moment2_unbiased = moment2 / (1 - beta2**t)
        w = w - lr * moment1_unbiased / (moment2_unbiased**0.5 + eps)
        yield w


def adamax(gradient, w, steps, lr, beta1, beta2, eps, first=0, max=max):
    """As printed, with Python's `max` and t from 0. With `first=1, max=torch.maximum` it is AdaMax."""
    moment1 = moment2 = 0 * w
    for t in range(first, first + steps):
        dw = gradient(w)
        moment1 = beta1 * moment1 + (1 - beta1) * dw
        moment2 = max(beta2 * moment2, abs(dw))
        moment1_unbiased = moment1 / (1 - beta1**t)
        w = w - lr * moment1_unbiased / (moment2 + eps)
        yield w


def raises(error: type[Exception], action) -> bool:
    """Whether `action()` fails with `error`."""
    try:
        action()
    except error:
        return True
    return False


def last(path) -> torch.Tensor:
    *_, w = path
    return w
