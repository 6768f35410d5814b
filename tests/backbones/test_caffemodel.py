"""Caffe weights, in files that Google's own protobuf library writes."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from detection.backbones.caffenet import caffenet
from detection.backbones.vgg16 import vgg16
from detection.backbones.zf5 import zf5
from detection.classification.classifier import GridFeatures
from detection.errors import UserError
from detection.sppnet.features import pyramid_fc
from detection.sppnet.image_features import PyramidFeatures

INT32, INT64, UINT32, FLOAT, DOUBLE, STRING, MESSAGE, ENUM_AS_INT = 5, 3, 13, 2, 1, 9, 11, 5
# (field, number, type, repeated, message): what caffe.proto says of the fields that files have
SCHEMA = {
    "BlobShape": [("dim", 1, INT64, True, None)],
    "BlobProto": [
        ("num", 1, INT32, False, None),
        ("channels", 2, INT32, False, None),
        ("height", 3, INT32, False, None),
        ("width", 4, INT32, False, None),
        ("data", 5, FLOAT, True, None),
        ("shape", 7, MESSAGE, False, "BlobShape"),
        ("double_data", 8, DOUBLE, True, None),
    ],
    "ConvolutionParameter": [("pad", 3, UINT32, True, None)],
    "V0Layer": [
        ("name", 1, STRING, False, None),
        ("type", 2, STRING, False, None),
        ("blobs", 50, MESSAGE, True, "BlobProto"),
    ],
    "V1Layer": [
        ("layer", 1, MESSAGE, False, "V0Layer"),
        ("name", 4, STRING, False, None),
        ("type", 5, ENUM_AS_INT, False, None),
        ("blobs", 6, MESSAGE, True, "BlobProto"),
        ("convolution_param", 10, MESSAGE, False, "ConvolutionParameter"),
    ],
    "Layer": [
        ("name", 1, STRING, False, None),
        ("type", 2, STRING, False, None),
        ("blobs", 7, MESSAGE, True, "BlobProto"),
        ("convolution_param", 106, MESSAGE, False, "ConvolutionParameter"),
    ],
    "Net": [
        ("name", 1, STRING, False, None),
        ("layers", 2, MESSAGE, True, "V1Layer"),
        ("layer", 100, MESSAGE, True, "Layer"),
    ],
}
PACKED = {"dim", "data", "double_data"}


@pytest.fixture(scope="module")
def caffe():
    """Message classes by name."""
    file = descriptor_pb2.FileDescriptorProto(name="caffe_test.proto", package="caffe_test")
    for message, rows in SCHEMA.items():
        proto = file.message_type.add(name=message)
        for name, number, kind, repeated, of in rows:
            field = proto.field.add(name=name, number=number, type=kind, label=3 if repeated else 1)
            if of:
                field.type_name = f".caffe_test.{of}"
            if name in PACKED:
                field.options.packed = True
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"caffe_test.{name}"))
        for name in SCHEMA
    }


def write(caffe, path, layers, v1=False, double=False, pads=None):
    """A `.caffemodel` of (name, [arrays]); `v1` as before 2014, with four sides to each blob.

    "first": as R-CNN's own files, a generation older, each layer inside one of the second.
    `pads`: of convolutions by name; 0 is not written, as Caffe's default.
    """
    net = caffe["Net"](name="test")
    for name, arrays in layers:
        layer = net.layers.add() if v1 else net.layer.add(name=name)
        if v1 == "first":
            layer = layer.layer
        layer.name = name
        if name in (pads or {}):
            layer.convolution_param.SetInParent()
            layer.convolution_param.pad.extend([pads[name]] if pads[name] else [])
        for array in arrays:
            blob = layer.blobs.add()
            if v1:
                sides = (1,) * (4 - array.ndim) + array.shape
                blob.num, blob.channels, blob.height, blob.width = sides
            else:
                blob.shape.dim.extend(array.shape)
            (blob.double_data if double else blob.data).extend(array.ravel().tolist())
    path.write_bytes(net.SerializeToString())
    return str(path)


def random_layers(net, fc8="fc8"):
    """Arrays for every layer of a CaffeNet."""
    generator = np.random.default_rng(0)
    convolutions = [m for m in net.conv if isinstance(m, torch.nn.Conv2d)]
    modules = [(f"conv{n}", m) for n, m in enumerate(convolutions, 1)]
    modules += [("fc6", net.grid_fc.fc6), ("fc7", net.grid_fc.fc7)]
    layers = [
        (name, [generator.normal(size=p.shape).astype("f4") / 10 for p in m.parameters()])
        for name, m in modules
    ]
    return [("data", []), *layers, (fc8, [np.zeros((2, 3), "f4"), np.zeros(2, "f4")])]


def make(weights, width=0.125):
    mean, std = [0.481, 0.4575, 0.4078], [0.25, 0.2, 0.3]
    return caffenet(weights=weights, width=width, input_px=227, mean=mean, std=std)


@pytest.mark.parametrize(
    ("v1", "double"), [(False, False), (True, False), ("first", False), (False, True)]
)
def test_first_layer_sees_what_caffe_saw(caffe, tmp_path, v1, double):
    """BGR pixels of 0 to 255 less their mean, by hand, against RGB in our own normalisation."""
    layers = random_layers(make(None), fc8="fc-rcnn")
    net = make(write(caffe, tmp_path / "net.caffemodel", layers, v1, double))
    image = torch.randint(0, 256, (3, 60, 70), dtype=torch.uint8)
    mean = torch.tensor([122.67891434, 116.66876762, 104.00698793]).view(3, 1, 1)
    bgr = (image.float() - mean).flip(0)[None]
    weight, bias = (torch.from_numpy(a) for a in dict(layers)["conv1"])
    want = F.conv2d(bgr, weight, bias, stride=4)
    got = net.conv[0](net.normalize(image)[None])
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-3)
    assert torch.equal(net.conv[4].weight, torch.from_numpy(dict(layers)["conv2"][0]))
    assert torch.equal(net.grid_fc.fc6.weight, torch.from_numpy(dict(layers)["fc6"][0]))
    assert net.pretrained
    assert net.grid_fc.pretrained


def zf5_of(weights, **options):
    plain = {"padding": "original", "normalization": "spatial", "input_px": 224, "width": 0.125}
    return zf5(weights=weights, mean=[0.5] * 3, std=[0.25] * 3, **{**plain, **options})


def test_spp_nets_zf5(caffe, tmp_path, caplog):
    """Its fc6 reads levels 1, 2, 3, 6, each channel's bins together; ours gives the same."""
    bare = zf5_of(None)
    layers = {name: arrays for name, arrays in random_layers(bare) if arrays}
    generator, channels, hidden = (
        np.random.default_rng(1),
        bare.channels,
        bare.grid_fc.fc7.in_features,
    )
    layers["fc6"] = [generator.normal(size=(hidden, channels * 50)).astype("f4"),
                     generator.normal(size=hidden).astype("f4")]  # fmt: skip
    pads = {"conv1": 1, "conv2": 0, "conv3": 1, "conv4": 1, "conv5": 1}
    path = write(caffe, tmp_path / "zf5.caffemodel", layers.items(), v1=True, pads=pads)
    for wrong in ({"padding": "paper"}, {"normalization": "channel"}):
        with pytest.raises(UserError, match=r"backbone\.padding=original"):
            zf5_of(path, **wrong)
    with pytest.raises(UserError, match=r"conv2 has a padding of 0, this network of 1"):
        zf5_of(path, padding="paper")
    fc6, fc7, pretrained = pyramid_fc(zf5_of(path), [6, 3, 2, 1], 1024)
    assert pretrained
    bins = {n: torch.rand(channels, n, n) for n in (1, 2, 3, 6)}
    theirs = torch.cat([bins[n].flatten() for n in (1, 2, 3, 6)])
    ours = torch.cat([bins[n].flatten(1).t().flatten() for n in (6, 3, 2, 1)])
    want = torch.from_numpy(layers["fc6"][0]) @ theirs + torch.from_numpy(layers["fc6"][1])
    torch.testing.assert_close(fc6(ours), want, rtol=1e-4, atol=1e-4)
    assert torch.equal(fc7.weight, torch.from_numpy(layers["fc7"][0]))
    other = PyramidFeatures(zf5_of(path), levels=[4, 3, 2, 1], bins="adaptive")
    for features in (GridFeatures(zf5_of(path)), other):
        caplog.clear()
        features.fully_connected()
        assert "those that were given read 1600 features" in caplog.text
    layers["fc7"][0] = layers["fc7"][0][:, :-1]
    with pytest.raises(UserError, match=r"layer fc7 is \(512, 511\), but this network has"):
        zf5_of(write(caffe, tmp_path / "zf5.caffemodel", layers.items()))


def test_faster_rcnns_zf_is_refused(caffe, tmp_path):
    """Its layers have ZF-5's names and shapes, but conv1 is padded by 3."""
    layers = [row for row in random_layers(zf5_of(None)) if row[1]]
    path = write(caffe, tmp_path / "zf.caffemodel", layers, pads={"conv1": 3, "conv2": 2})
    with pytest.raises(UserError, match="conv1 has a padding of 3, this network of 1"):
        zf5_of(path)


def test_vgg_names(caffe, tmp_path):
    plain = {"width": 0.0625, "input_px": 224, "mean": [0.485, 0.456, 0.406], "std": [0.2] * 3}
    fresh = vgg16(weights=None, **plain)
    names = [f"conv{b}_{n}" for b, k in enumerate((2, 2, 3, 3, 3), 1) for n in range(1, k + 1)]
    convolutions = [m for m in fresh.conv if isinstance(m, torch.nn.Conv2d)]
    layers = [
        (name, [np.full(p.shape, n, "f4") for p in m.parameters()])
        for n, (name, m) in enumerate(zip(names, convolutions, strict=True))
    ]
    net = vgg16(weights=write(caffe, tmp_path / "vgg.caffemodel", layers), **plain)
    biases = [m.bias[0].item() for m in net.conv if isinstance(m, torch.nn.Conv2d)]
    assert biases == list(range(13))
    assert not net.grid_fc.pretrained


def test_mistakes(caffe, tmp_path):
    path = tmp_path / "net.caffemodel"
    layers = random_layers(make(None))
    content = open(write(caffe, path, layers), "rb").read()  # noqa: SIM115
    for length in (len(content) - 100, 5000, 3):
        path.write_bytes(content[:length])
        with pytest.raises(UserError, match=r"truncated or no \.caffemodel"):
            make(str(path))
    path.write_bytes(b"")
    with pytest.raises(UserError, match="holds no layer with weights"):
        make(str(path))
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1")
    with pytest.raises(UserError, match=r"truncated or no \.caffemodel"):
        make(str(path))
    with pytest.raises(UserError, match="no such file"):
        make(str(tmp_path / "none.caffemodel"))
    with pytest.raises(UserError, match=r"no layer conv3 with weights.*another network"):
        make(write(caffe, path, [row for row in layers if row[0] != "conv3"]))
    with pytest.raises(UserError, match=r"layer conv1 is \(16, 3, 11, 11\).*\(24, 3, 11, 11\)"):
        make(write(caffe, path, layers), width=0.25)
    norm_first = [("norm1", []), ("pool1", []), *layers]
    with pytest.raises(UserError, match="it is AlexNet, not CaffeNet"):
        make(write(caffe, path, norm_first))
    assert make(write(caffe, path, [("pool1", []), ("norm1", []), *layers])).pretrained
    pyramid = [(n, [np.zeros((512, 1600), "f4"), a[1]] if n == "fc6" else a) for n, a in layers]
    assert not make(write(caffe, path, pyramid)).grid_fc.pretrained  # SPP-net's fc6
