"""What a network's paper says of it: `python -m detection.describe model=overfeat [OPTION=VALUE]`.

Options are those of train.py; `input=245x245` is another input than the network's own.
"""

from detection.runs.describe import main

if __name__ == "__main__":
    main()
