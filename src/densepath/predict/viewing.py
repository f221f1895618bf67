"""Test-time augmentation around an engine: several views of each image, one answer.

On the line: between an engine and its Predictor, so that any engine has it.
"""

from __future__ import annotations

from densepath.choices import TestAugmentation
from densepath.engines.engine import Engine, EngineInfo, Images, Logits, Normalised
from densepath.errors import UsageError
from densepath.images.preprocess import Preprocess
from densepath.images.resize import Fit
from densepath.images.views import MIRRORED, Views, average_views, make_views


class ViewingEngine:
    """An engine whose images are views [N, views, H, W, C], as its `fit` makes them."""

    def __init__(self, engine: Engine, views: Views) -> None:
        self.engine, self.views = engine, views
        self.fit: Fit = views

    @property
    def info(self) -> EngineInfo:
        """The engine's."""
        return self.engine.info

    @property
    def preprocess(self) -> Preprocess:
        """The engine's."""
        return self.engine.preprocess

    @property
    def lost(self) -> bool:
        """The engine's."""
        return self.engine.lost

    def run(self, images: Images) -> Logits:
        """uint8 [N, views, H, W, in_channels] → the mean logits of the views."""
        return average_views(self.engine.run, images)

    def run_share(self, images: Images) -> Logits:
        """As `run`, on one stream's share of the machine."""
        return average_views(self.engine.run_share, images)

    def run_tensor(self, tensor: Normalised) -> Logits:
        """The engine's: what is normalised has no views."""
        return self.engine.run_tensor(tensor)

    def run_tensor_share(self, tensor: Normalised) -> Logits:
        """The engine's: what is normalised has no views."""
        return self.engine.run_tensor_share(tensor)

    def close(self) -> None:
        """Close the engine."""
        self.engine.close()


def with_views(engine: Engine, how: TestAugmentation) -> Engine:
    """The engine itself for `none`, else one that averages over the views.

    Raises:
        UsageError, UnknownNameError: what `make_views` raises.
    """
    views = make_views(how, engine.preprocess, engine.fit)
    return engine if views is None else ViewingEngine(engine, views)


def check_mirrors(how: TestAugmentation, trained_on: str | None) -> None:
    """Raise unless images of that source may be mirrored; None: nobody knows the source.

    Raises:
        UsageError: they are digits.
    """
    if how not in MIRRORED or trained_on is None:
        return
    from densepath.data.sources import built_in  # only those that mirror wait for it

    if built_in(trained_on) == "digits":
        raise UsageError(
            f"--tta {how} mirrors images, and a mirror makes digits unreadable: the network was "
            "trained on digits as they are. --tta five-crop mirrors nothing."
        )


def describe_views(views: Views) -> str:
    """What is done and what it costs, in a sentence."""
    return (
        f"test-time augmentation {views.how}: the mean logits of {views.count} views of each "
        f"image, {views.count} times the network's work"
    )
