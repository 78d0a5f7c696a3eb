"""`python -m rekd_edge`: the command line, for launchers that start modules (`torchrun -m rekd_edge train …`).

Python puts the working directory first on the import path of a module that it runs. It is taken off here, before
anything more is imported. What Python itself imports earlier is out of reach: PYTHONSAFEPATH=1 keeps the directory off
from the start, and so does the `rekd-edge` command (`torchrun --no-python rekd-edge train …`).
"""

import os
import sys

if __name__ == "__main__":
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    if not sys.flags.safe_path and os.path.realpath(sys.path[0]) != os.path.realpath(package):
        del sys.path[0]

    from rekd_edge.cli import main

    main()
