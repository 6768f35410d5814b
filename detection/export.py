"""A trained model for other programs.

`python -m detection.export ckpt=RUN out=FILE.safetensors` writes its bare weights, FILE.onnx or
FILE.pt2 (torch.export) the network itself, as far as it is one; `--help` lists the options.
"""

from detection.runs.export import main

if __name__ == "__main__":
    main()
