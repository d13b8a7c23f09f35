"""Names of networks, rules and starts, and which rule has whose rate. Without torch: measures and figures use them too."""

MODELS = ("AllCNN", "DDplus", "MLP", "CNN")
RULES = ("Adam", "adaptive", "careful", "careful, back", "EVE", "EVE, walk", "adaptive + careful", "adaptive + EVE")
STARTS = ("small", "tuned")
TUNED = ("Adam", "adaptive", "careful", "EVE")  # those with a tuned rate of their own


def family(rule: str) -> str:
    """The rule whose tuned rate `rule` has: variants and combinations take that of the rule they are named by first."""
    return rule if rule in TUNED else rule.replace(",", " +").split(" +")[0]
