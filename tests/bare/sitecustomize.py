"""With this folder on PYTHONPATH, Python starts as if some packages were not installed, as on a bare GPU machine."""

from importlib.machinery import PathFinder

HIDDEN = ("hydra", "omegaconf", "antlr4", "beartype")
_find_spec = PathFinder.find_spec


def find_spec(cls, fullname, path=None, target=None):
    """What PathFinder finds, less the hidden packages."""
    return None if fullname.partition(".")[0] in HIDDEN else _find_spec(fullname, path, target)


PathFinder.find_spec = classmethod(find_spec)  # in the class itself, which pytest calls too
