"""Sentences whose numbers come from results.

Claims and sections are Jinja templates between << and >>, so that braces stay free for LaTeX:

    gradient descent ends at << gd_loss.e40 | number(4) >>, and << share_faster | percent >> of the cells agree

An unknown name or a number that was not measured is an error, never a gap in the text.
"""

import math
import re
from collections.abc import Callable, Mapping

import jinja2

from secondlook.errors import Mistake
from secondlook.study.statistics import Estimate

_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def _value(x: Estimate | float) -> float:
    return x.value if isinstance(x, Estimate) else float(x)


def number(x: Estimate | float, digits: int = 3) -> str:
    """`digits` significant digits: 0.0893, 12,800, 2.6×10⁻⁴, ∞."""
    x = _value(x)
    if not math.isfinite(x):
        return "n/a" if math.isnan(x) else "∞" if x > 0 else "−∞"
    if x == 0:
        return "0"
    mantissa, power = f"{x:.{digits - 1}e}".split("e")
    exponent = int(power)
    if -4 < exponent < 6:
        plain = f"{float(f'{x:.{digits - 1}e}'):,.{max(digits - 1 - exponent, 0)}f}"
        return plain.replace("-", "−")
    power = f"10{str(exponent).translate(_SUPERSCRIPT)}"
    return power if mantissa == "1" else f"{mantissa}×{power}".replace("-", "−")


def magnitude(x: Estimate | float) -> str:
    """The power of ten of the first digit, 10⁻¹¹ for 2.6×10⁻¹¹: of errors of rounding, whose digits depend on the processor."""
    x = _value(x)
    return number(10.0 ** math.floor(math.log10(abs(x))), 1) if x and math.isfinite(x) else number(x)


def fixed(x: Estimate | float, digits: int = 2) -> str:
    """`digits` digits after the point."""
    if math.isnan(_value(x)):
        return "n/a"
    return f"{_value(x):,.{digits}f}".replace("-", "−")


def percent(x: Estimate | float, digits: int = 0) -> str:
    """A fraction as a percentage."""
    if math.isnan(_value(x)):
        return "n/a"
    return f"{100 * _value(x):.{digits}f} %".replace("-", "−")


def interval(x: Estimate, show: Callable[..., str] = number, **options: int) -> str:
    """Value and interval: 0.31 [0.28, 0.34]; the value alone where it is exact, or the interval has no width to show. One that
    covers less than it should says so: 0.31 [0.28, 0.34; 94 %]."""
    value, low, high = (show(end, **options) for end in (x, *x.ends))
    covers = "" if x.coverage is None else f"; {percent(x.coverage)}"
    return value if value == low == high else f"{value} [{low}, {high}{covers}]"


def percent_interval(x: Estimate, digits: int = 0) -> str:
    """As `interval`, in percentages."""
    return interval(x, percent, digits=digits)


def key(*words: object) -> str:
    """What a template calls the measure of something with this label: "AdaHessian 1/4 batch" is adahessian_1_4_batch."""
    return re.sub(r"\W+", "_", " ".join(map(str, words)).lower())


ENVIRONMENT = jinja2.Environment(
    variable_start_string="<<",
    variable_end_string=">>",
    block_start_string="<%",
    block_end_string="%>",
    comment_start_string="<!--#",
    comment_end_string="#-->",
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
ENVIRONMENT.filters.update(
    number=number, magnitude=magnitude, fixed=fixed, percent=percent, interval=interval, percent_interval=percent_interval
)


def fill(template: str, values: Mapping, where: str) -> str:
    """`template` with its references replaced by `values`. `where` names the file in the message of an error."""
    try:
        return ENVIRONMENT.from_string(template).render(values)
    except (jinja2.TemplateError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise Mistake(f"{where}: {str(error) or type(error).__name__}") from error
