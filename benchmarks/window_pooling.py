"""Pooling 2,000 windows × {6, 3, 2, 1} on a 256×43×57 map: ours against four roi_pool calls."""

import torch
import torch.nn.functional as F
from torchvision.ops import roi_pool

from benchmarks.timing import compare
from detection.backbones.windows import pool_windows
from detection.runtime.memory import keep_freed_memory

LEVELS = (6, 3, 2, 1)


def main() -> None:
    keep_freed_memory()  # as train.py does; the peer gains from it too
    generator = torch.Generator().manual_seed(0)
    grid = torch.randn(43, 57, 256, generator=generator)
    x = torch.randint(0, 57, (2000, 2), generator=generator).sort(dim=1).values
    y = torch.randint(0, 43, (2000, 2), generator=generator).sort(dim=1).values
    windows = torch.stack([x[:, 0], y[:, 0], x[:, 1] + 1, y[:, 1] + 1], dim=1)
    maps = grid.permute(2, 0, 1)[None].contiguous()
    rois = torch.cat([torch.zeros(2000, 1), windows - torch.tensor([0, 0, 1, 1])], dim=1)

    def peer() -> list[torch.Tensor]:
        return [roi_pool(maps, rois, n) for n in LEVELS]

    pooled = pool_windows(grid, windows, LEVELS)
    for index in range(0, 2000, 50):  # exact maxima
        x1, y1, x2, y2 = windows[index].tolist()
        crop = maps[0, :, y1:y2, x1:x2]
        want = torch.cat([F.adaptive_max_pool2d(crop, n).flatten(1) for n in LEVELS], dim=1)
        assert torch.equal(pooled[index], want.t())
    print(f"{torch.get_num_threads()} threads")
    compare("float32", lambda: pool_windows(grid, windows, LEVELS), "4 × roi_pool", peer)
    half = grid.bfloat16()
    compare("bfloat16", lambda: pool_windows(half, windows, LEVELS), "4 × roi_pool float32", peer)


if __name__ == "__main__":
    main()
