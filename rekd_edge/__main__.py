"""`python -m rekd_edge`: the command line, for launchers that start modules (`torchrun -m rekd_edge train …`)."""

from rekd_edge.cli import main

if __name__ == "__main__":
    main()
