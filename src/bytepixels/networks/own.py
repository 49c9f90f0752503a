"""A module that somebody brings along, as the networks of this package are called."""

from inspect import signature

from torch import Tensor, nn


class OwnNetwork(nn.Module):
    """Wraps any module network(x, t) or network(x, t, label) -> like x; it is called without what it does not take.

    channels: of the images. num_classes: K; labels are 0..K-1, and K, which it is given for no label.
    """

    multiple = 1

    def __init__(self, network: nn.Module, channels: int, num_classes: int | None):
        super().__init__()
        self.network, self.channels, self.null_label = network, channels, num_classes
        self.takes_label = "label" in signature(network.forward).parameters
        self.text = None

    def check_size(self, height: int, width: int) -> None:
        """Nothing is known of the sizes that it takes: it says so itself when it is called."""

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None, dropout_keys: Tensor | None = None) -> Tensor:
        """x [B, C, H, W], t [B], label [B] -> like x."""
        if not self.takes_label or self.null_label is None:
            return self.network(x, t)
        if label is None:
            label = t.new_full(t.shape, self.null_label).long()
        return self.network(x, t, label)
