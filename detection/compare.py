"""One table of any runs: `python -m detection.compare RUN [RUN ...] [out=FILE]`.

Runs of other seeds are a row, with their mean and deviation; a column is what differs between
them. `--help` lists the options.
"""

from detection.runs.compare import main

if __name__ == "__main__":
    main()
