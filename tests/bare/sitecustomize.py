"""With this folder on PYTHONPATH, Python starts as if some packages were not installed, as on a bare GPU machine."""

import sys
from importlib.machinery import PathFinder

HIDDEN = ("hydra", "omegaconf", "antlr4", "beartype")


class Bare(PathFinder):
    """Finds what PathFinder finds, less the hidden packages."""

    @classmethod
    def find_spec(cls, fullname, path=None, target=None):
        return None if fullname.partition(".")[0] in HIDDEN else super().find_spec(fullname, path, target)


sys.meta_path[:] = [Bare if finder is PathFinder else finder for finder in sys.meta_path]
