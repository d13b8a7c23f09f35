"""The sides (a, g) of the Kronecker factors of each layer, and the positions T at which it is applied to one example.

From the definitions: ResNet-50 of He et al. (2016), the stride of a bottleneck in its 3 x 3 convolution, as is usual;
BERT-Large of Devlin et al. (2019): the linear layers of the encoder, without embeddings and heads.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Layer:
    a: int
    g: int
    positions: int


def _conv(before: int, after: int, kernel: int, side: int) -> Layer:
    return Layer(before * kernel**2, after, side**2)


def resnet_50() -> list[Layer]:
    layers, before = [_conv(3, 64, 7, 112)], 64
    for stage, blocks in enumerate((3, 4, 6, 3)):
        inner, side = 64 * 2**stage, 56 // 2**stage
        for block in range(blocks):
            entering = side if block or not stage else 2 * side
            layers += [_conv(before, inner, 1, entering), _conv(inner, inner, 3, side), _conv(inner, 4 * inner, 1, side)]
            if not block:
                layers.append(_conv(before, 4 * inner, 1, side))
            before = 4 * inner
    return [*layers, Layer(before + 1, 1000, 1)]


def bert_large(tokens: int) -> list[Layer]:
    """24 blocks of width 1024: query, key, value, output, and two layers through 4096."""
    block = [Layer(1025, 1024, tokens)] * 4 + [Layer(1025, 4096, tokens), Layer(4097, 1024, tokens)]
    return block * 24
