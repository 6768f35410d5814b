"""Features of a folder of images, from any layer of a trained classifier (as OverFeat released).

`python -m detection.extract ckpt=RUN images=FOLDER out=FILE.npz` writes one vector an image, or
its whole map. Work that was stopped goes on where it was. `--help` lists the options.
"""

from detection.runs.extract import main

if __name__ == "__main__":
    main()
