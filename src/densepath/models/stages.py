"""The modules of a backbone in turn, of which a whole stage may be computed as one operation."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from torch import Tensor, nn

from densepath.models.layers import Fused


class Stage(nn.Sequential):
    """The blocks of a stage of a `Stages`, which are its modules, too, under the same names."""

    fused: Fused | None = None

    def of_all(
        self, children: list[tuple[str, nn.Module]], x: Tensor, shown: Collection[str]
    ) -> Tensor | None:
        """The output of all its blocks at once; None where they have to compute it.

        They do, too, where one of them has been replaced since: they would lead these `children`;
        and where the output of one before the last is to be `shown`.
        """
        own = list(self.named_children())
        if self.fused is None or children[: len(own)] != own:
            return None
        if any(name in shown for name, _ in own[:-1]):
            return None
        return self.fused(self, x)


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
        children = list(self.named_children())
        while children:
            name, module = children[0]
            stage = self.stages.get(name)
            out = stage.of_all(children, x, shown) if stage is not None else None
            if stage is None or out is None:
                x, done = module(x), 1
            else:
                x, done = out, len(stage)
            yield children[done - 1][0], x
            del children[:done]
