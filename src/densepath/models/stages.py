"""The modules of a backbone in turn, of which a whole stage may be computed as one operation."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn

from densepath.models.layers import Fused


class Stage(nn.Sequential):
    """The blocks of a stage of a `Stages`, which are its modules, too, under the same names."""

    fused: Fused | None = None


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

    def walk(self, x: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Yield each module's name and output; of a stage computed as one, those of its last."""
        left_out = 0
        for name, module in self.named_children():
            if left_out:
                left_out -= 1
                continue
            stage = self.stages.get(name)
            out = stage.fused(stage, x) if stage is not None and stage.fused is not None else None
            if stage is None or out is None:
                x = module(x)
                yield name, x
                continue
            x, left_out = out, len(stage) - 1
            yield list(stage._modules)[-1], x
