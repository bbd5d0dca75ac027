"""The command `tvrkit`, and `python -m tvrkit`, which torchrun takes as `torchrun -m tvrkit`."""

import sys

import tvrkit  # noqa: F401  (it finds the folder that holds cli.py)


def main() -> None:
    """Run the command line and leave with its exit code."""
    import cli
    from pipeline.core import ranks

    ranks.leave(cli.main(program="tvrkit"))


if __name__ == "__main__":
    main()
    sys.exit()
