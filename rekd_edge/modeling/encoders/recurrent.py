"""A bidirectional LSTM on a text transformer's word embeddings."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from torch.overrides import handle_torch_function, has_torch_function
from transformers import AutoConfig, PretrainedConfig

from rekd_edge.modeling.encoders.small import SmallNet, TextEncoder, real_positions

__all__ = ["BiLSTM", "BiLSTMEncoder", "read_both_ways"]


class BiLSTMConfig(PretrainedConfig):
    """`num_hidden_layers` counts LSTM layers; each direction has half of `hidden_size`."""

    model_type = "rekd-bilstm"


AutoConfig.register(BiLSTMConfig.model_type, BiLSTMConfig)


class BiLSTM(SmallNet):
    """Bidirectional LSTM layers."""

    config_class = BiLSTMConfig
    donors = ("bert", "roberta")
    default_layers = 1

    def __init__(self, config: Any) -> None:
        width = config.hidden_size
        lstms = [
            nn.LSTM(width, width // 2, batch_first=True, bidirectional=True) for _ in range(config.num_hidden_layers)
        ]
        super().__init__(config, [*lstms])


class BiLSTMEncoder(TextEncoder):
    """Both directions read real tokens alone: the backward one starts at the last of them."""

    net = BiLSTM
    recurrent = True

    def layers(self, hidden: Tensor, bias: Tensor | None) -> Tensor:
        lengths = real_positions(hidden, bias).sum(dim=1)
        for lstm in self.layer_stack():
            hidden = self.step(read_both_ways, lstm, hidden, lengths)
        return hidden


def read_both_ways(lstm: Any, hidden: Tensor, lengths: Tensor) -> Tensor:
    """States [batch, positions, hidden] of both directions side by side; beyond a text's end they are finite and
    mean nothing.

    Args:
        lstm: one bidirectional layer of `nn.LSTM`.
        hidden: [batch, positions, hidden].
        lengths: int64 [batch], real tokens of each text; 0 is padding alone.
    """
    if has_torch_function((hidden, lengths)):  # export writes a node of its own
        return handle_torch_function(read_both_ways, (hidden, lengths), lstm, hidden, lengths)

    packed = pack_padded_sequence(hidden, lengths.clamp(min=1).cpu(), batch_first=True, enforce_sorted=False)
    states, _ = lstm(packed)
    return pad_packed_sequence(states, batch_first=True, total_length=hidden.shape[1])[0]
