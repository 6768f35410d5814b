"""The reader of published Caffe weights (`.caffemodel`), without Caffe.

A `.caffemodel` is a protocol buffer; only the few fields that hold layers and their blobs are
looked at. Numbers of fields: caffe, src/caffe/proto/caffe.proto.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from detection.errors import UserError

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # wire types
LAYER, LAYER_V1 = 100, 2  # in NetParameter
PLACES = {LAYER: (1, 7, 106), LAYER_V1: (4, 6, 10)}  # name, blobs and convolution_param
V0_LAYER, V0_PLACES = 1, (1, 50, -1)  # the first generation lies inside a layer of the second
PAD = 3  # in ConvolutionParameter
DIMENSIONS, DATA, SHAPE, DOUBLE_DATA = (1, 2, 3, 4), 5, 7, 8  # in BlobProto
DIM = 1  # in BlobShape

Field = tuple[int, int, Any]  # number, wire type, an int or a memoryview


@dataclass(frozen=True)
class CaffeLayer:
    """A layer of a file.

    Attributes:
        blobs: weights, then bias, float32; perhaps none.
        pad: rows and columns of zeros about a convolution's input; None where the file does not
            tell.
    """

    blobs: list[Tensor]
    pad: int | None


def read_caffemodel(path: Path) -> dict[str, CaffeLayer]:
    """Layers by name, in the net's order.

    Raises:
        UserError: the file is missing, truncated, or no `.caffemodel`.
    """
    if not path.is_file():
        raise UserError(f"backbone.weights={path}: there is no such file")
    content = memoryview(path.read_bytes())
    layers: dict[str, CaffeLayer] = {}
    try:
        for number, wire, value in fields(content):
            if number in PLACES and wire == BYTES:
                name, layer = read_layer(*oldest(number, value))
                layers[name] = layer
    except (ValueError, UnicodeDecodeError) as error:
        raise UserError(
            f"backbone.weights={path} is truncated or no .caffemodel ({error}): fetch it again"
        ) from None
    if not any(layer.blobs for layer in layers.values()):
        raise UserError(f"backbone.weights={path} holds no layer with weights")
    return layers


def oldest(generation: int, content: memoryview) -> tuple[memoryview, tuple[int, int, int]]:
    """A layer, and its fields' numbers: R-CNN's own files are of the first kind."""
    if generation == LAYER_V1:
        for number, wire, value in fields(content):
            if number == V0_LAYER and wire == BYTES:
                return value, V0_PLACES
    return content, PLACES[generation]


def read_layer(content: memoryview, places: tuple[int, int, int]) -> tuple[str, CaffeLayer]:
    """Name and content of one layer, which lie in these fields."""
    name_field, blob_field, convolution_field = places
    name, blobs, pad = "", [], None
    for number, wire, value in fields(content):
        if number == name_field and wire == BYTES:
            name = bytes(value).decode()
        elif number == blob_field and wire == BYTES:
            blobs.append(read_blob(value, name))
        elif number == convolution_field and wire == BYTES:
            pads = [p for n, w, v in fields(value) if n == PAD for p in integers(w, v)]
            pad = pads[0] if pads else 0
    return name, CaffeLayer(blobs, pad)


def read_blob(content: memoryview, layer: str) -> Tensor:
    """One array; its shape is written in one of two ways."""
    sides = dict.fromkeys(DIMENSIONS, 1)
    shape: list[int] | None = None
    parts = []
    for number, wire, value in fields(content):
        if number in sides and wire == VARINT:
            sides[number] = value
        elif number == SHAPE and wire == BYTES:
            shape = [d for n, w, v in fields(value) if n == DIM for d in integers(w, v)]
        elif number in (DATA, DOUBLE_DATA) and wire != VARINT:
            kind = "<f4" if number == DATA else "<f8"
            parts.append(np.frombuffer(value, kind).astype(np.float32))
    data = np.concatenate(parts) if parts else np.zeros(0, np.float32)
    shape = shape if shape is not None else [sides[n] for n in DIMENSIONS]
    if np.prod(shape, dtype=np.int64) != len(data):
        raise ValueError(f"layer {layer}: {len(data)} numbers for a blob of shape {shape}")
    return torch.from_numpy(data.reshape(shape))


def integers(wire: int, value: Any) -> list[int]:
    """A repeated integer field, packed or not."""
    if wire == VARINT:
        return [value]
    numbers, place = [], 0
    while place < len(value):
        number, place = varint(value, place)
        numbers.append(number)
    return numbers


def fields(content: memoryview) -> Iterator[Field]:
    """The fields of one message, in order.

    Raises:
        ValueError: the message ends inside a field.
    """
    place = 0
    while place < len(content):
        key, place = varint(content, place)
        number, wire = key >> 3, key & 7
        if wire == VARINT:
            value, place = varint(content, place)
            yield number, wire, value
            continue
        if wire == BYTES:
            length, place = varint(content, place)
        elif wire in (FIXED64, FIXED32):
            length = 8 if wire == FIXED64 else 4
        else:
            raise ValueError(f"wire type {wire} at byte {place}")
        if place + length > len(content):
            raise ValueError(f"it ends inside a field of {length} bytes")
        yield number, wire, content[place : place + length]
        place += length


def varint(content: memoryview, place: int) -> tuple[int, int]:
    """An integer of seven bits a byte, lowest first, and the place after it."""
    value = shift = 0
    while True:
        if place >= len(content) or shift > 63:
            raise ValueError("it ends inside a number")
        byte = content[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
        shift += 7
