"""The papers' algorithms as one reads them: slow, in plain Python, for comparison."""

import numpy as np

# Uijlings et al. 2013, 3.2
COLOUR_BINS, TEXTURE_BINS = 25, 10


def segment(smooth, k, min_size):
    """Felzenszwalb and Huttenlocher 2004, 3.2: labels in the order of their first pixels."""
    height, width = smooth.shape[:2]
    edges = []
    for y in range(height):
        for x in range(width):
            for dy, dx in ((0, 1), (1, 0), (1, 1), (1, -1)):
                if y + dy < height and 0 <= x + dx < width:
                    total = np.float32(0)
                    for c in range(smooth.shape[2]):
                        difference = smooth[y, x, c] - smooth[y + dy, x + dx, c]
                        total = total + difference * difference
                    edges.append((np.sqrt(total), (y, x), (y + dy, x + dx)))
    edges.sort(key=lambda edge: edge[0])  # stable
    component = {(y, x): (y, x) for y in range(height) for x in range(width)}
    members = {pixel: [pixel] for pixel in component}
    internal = {pixel: np.float32(0) for pixel in component}

    def join(a, b, weight):
        for pixel in members[b]:
            component[pixel] = a
        members[a] += members.pop(b)
        internal[a] = weight

    def limit(a):
        return internal[a] + np.float32(k) / np.float32(len(members[a]))

    for weight, p, q in edges:
        a, b = component[p], component[q]
        if a != b and weight <= min(limit(a), limit(b)):
            join(a, b, weight)
    for weight, p, q in edges:
        a, b = component[p], component[q]
        if a != b and min(len(members[a]), len(members[b])) < min_size:
            join(a, b, weight)
    numbers = {}
    labels = np.zeros((height, width), np.int32)
    for y in range(height):
        for x in range(width):
            labels[y, x] = numbers.setdefault(component[y, x], len(numbers))
    return labels, len(numbers)


def colour_histogram(image, inside):
    """Counts of the pixels of a region, channel after channel."""
    bins = image[inside].astype(int) * COLOUR_BINS // 256
    return np.concatenate([np.bincount(b, minlength=COLOUR_BINS) for b in bins.T])


def texture_histogram(dx, dy, inside):
    """Counts of derivatives in eight directions, the negative ones in the lowest bin."""
    half, counts = np.float32(np.sqrt(0.5)), []
    for c in range(dx.shape[2]):
        a, b = dx[:, :, c], dy[:, :, c]
        top = max(np.abs(a).max(), np.abs(b).max(), (half * (np.abs(a) + np.abs(b))).max())
        scale = np.float32(TEXTURE_BINS) / top if top > 0 else np.float32(0)
        a, b = a * scale, b * scale
        for way in (a, half * (a + b), b, half * (b - a)):
            for value in (np.where(way >= 0, way, 0), np.where(way < 0, -way, 0)):
                bins = np.minimum(value[inside].astype(int), TEXTURE_BINS - 1)
                counts.append(np.bincount(bins, minlength=TEXTURE_BINS))
    return np.concatenate(counts)


def group(labels, count, image, dx, dy, use):
    """Uijlings et al. 2013, algorithm 1: the pair joined in each step, and each node's box."""
    masks = [labels == i for i in range(count)]
    colours = [colour_histogram(image, m) for m in masks]
    textures = [texture_histogram(dx, dy, m) for m in masks]
    area, channels = float(labels.size), image.shape[2]
    alive = set(range(count))
    touching = set()
    height, width = labels.shape
    for y in range(height):
        for x in range(width):
            for dy_, dx_ in ((0, 1), (1, 0), (1, 1), (1, -1)):
                if y + dy_ < height and 0 <= x + dx_ < width:
                    a, b = int(labels[y, x]), int(labels[y + dy_, x + dx_])
                    if a != b:
                        touching.add((min(a, b), max(a, b)))

    def box(mask):
        rows, columns = np.nonzero(mask)
        return [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]

    def alike(p, q, s, t, parts):
        shared = sum(min(int(a) * t, int(b) * s) for a, b in zip(p, q, strict=True))
        return float(shared) / (parts * float(s) * float(t))

    def similarity(i, j):
        s, t = int(masks[i].sum()), int(masks[j].sum())
        total = 0.0
        if use[0]:
            total += alike(colours[i], colours[j], s, t, channels)
        if use[1]:
            total += alike(textures[i], textures[j], s, t, 8 * channels)
        if use[2]:
            total += 1.0 - (float(s) + float(t)) / area
        if use[3]:
            x1, y1, x2, y2 = box(masks[i] | masks[j])
            total += 1.0 - (float(x2 - x1) * float(y2 - y1) - float(s) - float(t)) / area
        return total

    score = {pair: similarity(*pair) for pair in touching}
    joined = []
    while len(alive) > 1:
        i, j = max(score, key=lambda pair: (score[pair], -pair[0], -pair[1]))
        new = len(masks)
        masks.append(masks[i] | masks[j])
        colours.append(colours[i] + colours[j])
        textures.append(textures[i] + textures[j])
        others = {n for pair in score if i in pair or j in pair for n in pair} - {i, j}
        score = {pair: s for pair, s in score.items() if i not in pair and j not in pair}
        alive = alive - {i, j} | {new}
        joined.append([i, j])
        score |= {(n, new): similarity(n, new) for n in others}
    return np.array(joined, int).reshape(-1, 2), np.array([box(m) for m in masks])
