"""The encoder: BERT (Devlin et al. 2018), and a classifier on top of it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pellucid.networks.dropout import Dropout
from pellucid.networks.encoder_config import EncoderConfig
from pellucid.networks.transformer import EncoderBlock, check_block, table


class Encoder(nn.Module):
    """BERT: ids in, one vector a token out, each of which has seen the whole sequence.

    Args:
        config: The shape.
        seed: Of the initialisation; None leaves the parameters on the meta device, for who loads them from a file.

    Raises:
        ValueError: when the configuration contradicts itself.
    """

    def __init__(self, config: EncoderConfig, seed: int | None = 0) -> None:
        super().__init__()
        check_block(config)
        self.config = config
        device = torch.get_default_device()
        with torch.device("meta"):
            self.embedding = table(config.vocab_size, config.d_model)
            self.positions = table(config.context, config.d_model)
            self.types = table(config.type_vocab_size, config.d_model)
            self.embedding_norm = nn.LayerNorm(config.d_model, config.norm_eps)
            self.blocks = nn.ModuleList(EncoderBlock(config) for _ in range(config.n_layers))
        self.dropout = Dropout(config.dropout)
        if seed is not None and device.type != "meta":
            self.to_empty(device=device)
            self.initialise(seed)

    def forward(self, ids_BT: Tensor, mask_BT: Tensor | None = None, types_BT: Tensor | None = None) -> Tensor:
        """The last layer's vectors, (B, T, d_model).

        Args:
            ids_BT: Tokens, and after them padding where a sequence is shorter than T.
            mask_BT: True (or 1) where there is a token, at least once in each row; None: everywhere.
            types_BT: The kind of each token; None: 0 everywhere.

        Raises:
            ValueError: when the sequence is longer than `config.context`.
        """
        return self.hidden_states(ids_BT, mask_BT, types_BT)[-1]

    def hidden_states(
        self, ids_BT: Tensor, mask_BT: Tensor | None = None, types_BT: Tensor | None = None
    ) -> list[Tensor]:
        """What each layer makes of the tokens: n_layers + 1 times (B, T, d_model), the embedding first.

        Arguments and errors are those of `forward`.
        """
        x_BTD = self._embed(ids_BT, types_BT)
        mask_BT = mask_BT.bool() if mask_BT is not None else None
        states = [x_BTD]
        for block in self.blocks:
            states.append(block(states[-1], mask_BT))
        return states

    def _embed(self, ids_BT: Tensor, types_BT: Tensor | None) -> Tensor:
        length = ids_BT.shape[1]
        if length > self.config.context:
            raise ValueError(f"{length} tokens do not fit into a context of {self.config.context}")
        types = self.types(types_BT) if types_BT is not None else self.types.weight[0]
        return self.dropout(self.embedding_norm(self.embedding(ids_BT) + types + self.positions.weight[:length]))

    def initialise(self, seed: int) -> None:
        """Draw all parameters anew, as BERT's code does: N(0, 0.02), biases 0, norms 1."""
        _initialise(self, seed)


class Classifier(nn.Module):
    """An encoder and a head: ids in, the logits of the classes out (Devlin et al. 2018, figure 4b).

    Args:
        config: The shape, with `classes` of at least 1.
        seed: As in `Encoder`.

    Raises:
        ValueError: when the configuration contradicts itself.
    """

    def __init__(self, config: EncoderConfig, seed: int | None = 0) -> None:
        super().__init__()
        if config.classes < 1:
            raise ValueError("a classifier needs at least one class")
        if config.pooling not in ("first", "mean"):
            raise ValueError(f"no pooling {config.pooling!r}")
        self.config = config
        device = torch.get_default_device()
        self.encoder = Encoder(config, seed=None)
        with torch.device("meta"):
            self.pooler = nn.Linear(config.d_model, config.d_model) if config.pooling == "first" else None
            self.head = nn.Linear(config.d_model, config.classes)
        self.dropout = Dropout(config.dropout)
        if seed is not None and device.type != "meta":
            self.to_empty(device=device)
            self.initialise(seed)

    def forward(self, ids_BT: Tensor, mask_BT: Tensor | None = None, types_BT: Tensor | None = None) -> Tensor:
        """Logits (B, classes); arguments and errors are those of `Encoder.forward`."""
        return self.head(self.dropout(self.pooled(self.encoder(ids_BT, mask_BT, types_BT), mask_BT)))

    def pooled(self, hidden_BTD: Tensor, mask_BT: Tensor | None = None) -> Tensor:
        """The one vector that stands for a sequence, (B, d_model)."""
        if self.pooler is not None:
            return torch.tanh(self.pooler(hidden_BTD[:, 0]))
        return mean_over_tokens(hidden_BTD, mask_BT)

    def initialise(self, seed: int) -> None:
        """Draw all parameters anew, as `Encoder.initialise`."""
        _initialise(self, seed)


def mean_over_tokens(hidden_BTD: Tensor, mask_BT: Tensor | None = None) -> Tensor:
    """The mean over the tokens that are no padding, (B, d_model): a sentence embedding (Reimers et al. 2019)."""
    if mask_BT is None:
        return hidden_BTD.mean(1)
    share_BT = mask_BT / mask_BT.sum(1, keepdim=True)
    return (hidden_BTD * share_BT.to(hidden_BTD.dtype)[..., None]).sum(1)


@torch.no_grad()
def _initialise(network: nn.Module, seed: int) -> None:
    generator = torch.Generator(next(network.parameters()).device).manual_seed(seed)
    for name, parameter in network.named_parameters():
        if name.endswith("bias"):
            parameter.zero_()
        elif "norm" in name:
            parameter.fill_(1.0)
        else:
            parameter.normal_(0.0, 0.02, generator=generator)
