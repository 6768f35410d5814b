"""Outlines of the shapes that `draw_shapes` draws."""

import numpy as np
from numpy.typing import NDArray

Ring = NDArray[np.float64]  # (points, 2) xy

CLASSES = ("cross", "ellipse", "rectangle", "ring", "star", "triangle")


def outline(name: str, size: float, generator: np.random.Generator) -> list[Ring]:
    """Closed curves of a shape about the origin: turned, stretched, at a random angle.

    Args:
        name: one of `CLASSES`.
        size: the larger side of the shape before it is turned, in pixels.
        generator: of aspect and angle.
    """
    aspect = generator.uniform(0.55, 1.0)
    angle = generator.uniform(0, 2 * np.pi)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    stretch = size / 2 * np.array([1.0, aspect])
    return [ring * stretch @ turn.T for ring in unit_outline(name, generator)]


def unit_outline(name: str, generator: np.random.Generator) -> list[Ring]:
    """Curves of a shape inside the square from -1 to 1."""
    if name == "ellipse":
        return [circle(1.0)]
    if name == "ring":
        return [circle(1.0), circle(generator.uniform(0.5, 0.65))]
    if name == "rectangle":
        return [np.array([[-1.0, -1], [1, -1], [1, 1], [-1, 1]])]
    if name == "triangle":
        return [np.array([[-1.0, 1], [1, 1], [generator.uniform(-0.5, 0.5), -1]])]
    if name == "star":
        return [star(int(generator.integers(5, 7)), generator.uniform(0.4, 0.5))]
    arm = generator.uniform(0.28, 0.4)
    quarter = np.array([[arm, -1.0], [arm, -arm], [1, -arm]])
    turns = [np.array([[0, -1], [1, 0]], float)]
    turn = np.linalg.matrix_power
    return [np.concatenate([quarter @ turn(turns[0], k).T for k in range(4)])]


def circle(radius: float) -> Ring:
    """A circle of 48 corners."""
    angle = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    return radius * np.stack([np.cos(angle), np.sin(angle)], axis=1)


def star(points: int, inner: float) -> Ring:
    """A star with some points; `inner` is the radius of its notches."""
    angle = np.arange(2 * points) * np.pi / points
    radius = np.where(np.arange(2 * points) % 2 == 0, 1.0, inner)[:, None]
    return radius * np.stack([np.cos(angle), np.sin(angle)], axis=1)
