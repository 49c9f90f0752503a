"""A run's network and the way back to images, as programs of torch.export and as ONNX graphs."""

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..sampling.settings import is_flow_map
from ..sampling.trained_model import TrainedModel

if TYPE_CHECKING:
    from onnx import ModelProto

OPSET = 20
MOST = 4096  # images in a batch


class Named(nn.Module):
    """A network whose inputs are positional, in the order of `inputs_of`."""

    def __init__(self, network: nn.Module, names: list[str]):
        super().__init__()
        self.network, self.names = network, names

    def forward(self, *inputs: Tensor) -> Tensor:
        told: dict[str, Any] = dict(zip(self.names, inputs, strict=True))
        if "vectors" in told:
            told["text"] = told.pop("vectors"), told.pop("mask")
        return self.network(told.pop("x"), told.pop("t"), **told)


class Finish(nn.Module):
    """x0 -> images uint8: the pixels themselves, or the decoder of latents."""

    def __init__(self, model: TrainedModel):
        super().__init__()
        self.codec = copy(model.codec)
        self.codec.at_a_time = MOST  # type: ignore[attr-defined]
        self.decoder = getattr(model.codec, "autoencoder", None)

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.codec.to_images(*inputs)


def inputs_of(model: TrainedModel, batch: int = 2) -> dict[str, Tensor]:
    """The inputs of the network by name, as an example: x [B, c, h, w], t [B], and what it can be told."""
    run, device = model.run, torch.device("cpu")
    found = {"x": torch.randn(batch, *run.x0_shape), "t": torch.full((batch,), 0.5)}
    if run.classes:
        found["label"] = torch.zeros(batch, dtype=torch.int64)
    if run.text is not None:
        length = 8
        found["vectors"] = torch.randn(batch, length, int(run.config.network.text_dim or 0))
        found["mask"] = torch.ones(batch, length, dtype=torch.bool)
    if is_flow_map(run.config):
        found["destination"] = torch.full((batch,), 0.25)
    return {name: value.to(device) for name, value in found.items()}


def program(module: nn.Module, example: Mapping[str, Tensor]) -> torch.export.ExportedProgram:
    """The torch.export program of a module with positional inputs, for any batch and any length of a text."""
    batch, length = torch.export.Dim("batch", min=1, max=MOST), torch.export.Dim("length", min=1, max=512)
    sizes = tuple({0: batch, 1: length} if name in ("vectors", "mask") else {0: batch} for name in example)
    with torch.no_grad(), quiet():
        return torch.export.export(module.eval(), tuple(example.values()), dynamic_shapes=(sizes,), strict=False)


def network_program(model: TrainedModel) -> torch.export.ExportedProgram:
    """The network's program, in float32."""
    example = inputs_of(model)
    return program(Named(model.network.float(), list(example)), example)


def as_onnx(made: torch.export.ExportedProgram, inputs: list[str], output: str) -> "ModelProto":
    """The ONNX model of a program. InputError where the packages for it are not installed."""
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise InputError(f"export --to onnx needs pip install 'bytepixels[onnx]': {error}") from error
    with torch.no_grad(), quiet():
        found = torch.onnx.export(
            made, dynamo=True, input_names=inputs, output_names=[output], opset_version=OPSET, verbose=False
        )
    assert found is not None
    model: ModelProto = found.model_proto
    return model


@contextmanager
def quiet() -> Iterator[None]:
    """Without the exporter's remarks about packages that are not needed."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
