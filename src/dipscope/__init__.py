"""dipscope: does this reasoning SFT generalize, under which conditions, and at what cost?"""

from dipscope.errors import DipscopeError

__version__ = "0.1.0"
__all__ = ["DipscopeError", "__version__"]
