"""The verbs of the command: what each one takes, does and prints, one file per family.

A verb runs where its state is: in the supervisor, writing to the client's descriptors, or in the client's
own process when it changes nothing. It sees neither: it has a :class:`Session`.
"""

from pycore.cli.perform import main_local, perform
from pycore.cli.session import Session

__all__ = ["Session", "main_local", "perform"]
