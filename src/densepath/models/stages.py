"""The modules of a backbone in turn, of which a whole stage may be computed as one operation."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from torch import Tensor, nn

from densepath.models.layers import Fused


class Stage(nn.Sequential):
    """The blocks of a stage of a `Stages`, which are its modules, too, under the same names."""

    fused: Fused | None = None


class StemStage(Stage):
    """What follows the first convolution, or that and it, up to the max-pool."""


class Stages(nn.Sequential):
    """A stem and what follows it.

    Attributes:
        stages: those that may be computed as one, by the name of their first block.
    """

    def __init__(self, *modules: dict[str, nn.Module]) -> None:
        super().__init__()
        for named in modules:
            for name, module in named.items():
                self.add_module(name, module)
        self.stages: dict[str, Stage] = {}

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] → what the last module gives."""
        for _, out in self.walk(x):
            x = out
        return x

    def walk(self, x: Tensor, shown: Collection[str] = ()) -> Iterator[tuple[str, Tensor]]:
        """Yield each module's name and output; of a stage computed as one, those of its last.

        No stage is computed as one of which another output is to be `shown`.
        """
        left_out = 0
        for name, module in self.named_children():
            if left_out:
                left_out -= 1
                continue
            stage = self.stages.get(name)
            out = None
            if stage is not None and stage.fused is not None:
                inside = list(stage._modules)[:-1]
                out = None if set(inside) & set(shown) else stage.fused(stage, x)
            if stage is None or out is None:
                x = module(x)
                yield name, x
                continue
            x, left_out = out, len(stage) - 1
            yield list(stage._modules)[-1], x
