"""The extras of the package, and what to say where a module of one is not installed."""

BENEATH = {"study": ("run",), "report": ("study", "run")}  # the extras that an extra brings along
EXTRAS = {  # the modules that each extra of pyproject.toml brings, by the names of their imports
    "run": ("pandas", "yaml", "tqdm"),
    "study": ("jinja2", "jsonschema", "scipy"),
    "report": ("matplotlib", "PIL", "pypandoc", "seaborn", "typst"),
    "data": ("PIL", "sklearn", "torchvision"),
    "benchmark": ("backpack", "curvlinops", "pytorch_optimizer", "torch_optimizer"),
}


def missing(module: str, verb: str, extra: str) -> str:
    """What to say where `verb`, which needs an `extra`, lacks a module: maybe another extra brings it."""
    package = module.partition(".")[0]
    bringing = [name for name, modules in EXTRAS.items() if package in modules]
    if not bringing:
        return f"{verb} needs the package {package}, which is not installed"
    whole = extra if extra in bringing or bringing[0] in BENEATH.get(extra, ()) else bringing[0]
    return f"{verb} needs {package}, which is not installed: pip install 'secondlook[{whole}]'"
