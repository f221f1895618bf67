"""`densepath predict --features --neighbours`: what is kept of the embeddings as they pass."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from densepath.cli.console import note
from densepath.errors import UsageError

if TYPE_CHECKING:
    from densepath.predict.answers import Prediction
    from densepath.predict.predictor import Embedding, Predictor


class Collected:
    """Writes the feature file as the answers pass, and on leaving draws the neighbours."""

    def __init__(
        self, predictor: Predictor, features: Path | None, neighbours: Path | None, subject: str
    ) -> None:
        self._predictor, self._subject = predictor, subject
        self._features, self._neighbours = features, neighbours
        self._kept: list[tuple[str, str, Any]] = []  # file, answer, features
        self._stack = ExitStack()

    def __enter__(self) -> Collected:
        """Open the feature file."""
        from densepath.predict.feature_file import write_features

        self._rows = None
        if self._features is not None:
            opened = write_features(self._features, subject=self._subject)
            self._rows = self._stack.enter_context(opened)
        return self

    def answers(self, embeddings: Iterator[Embedding]) -> Iterator[Prediction]:
        """The answers, their features kept."""
        for one in embeddings:
            if self._rows is not None:
                self._rows.add(one.prediction, one.features)
            if self._neighbours is not None and one.features is not None:
                self._kept.append((one.prediction.path, one.prediction.labels[0], one.features))
            yield one.prediction

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Finish the file and draw, where all went well."""
        self._stack.__exit__(kind, error, trace)
        if kind is not None:
            return
        if self._features is not None:
            side = self._features.with_suffix(".json")
            note(f"features in {self._features}, names in {side}")
        if self._neighbours is not None:
            self._draw(self._neighbours)

    def _draw(self, path: Path) -> None:
        """Write the picture; where it cannot be drawn that is said.

        Raises:
            UsageError: fewer than two images were answered.
        """
        import numpy as np

        from densepath.drawing.picture import save_picture
        from densepath.images.preprocess import Image
        from densepath.predict.neighbours import draw_neighbours, find_neighbours, spread_queries

        if len(self._kept) < 2:
            raise UsageError("--neighbours needs two images that can be read.")
        names, labels, features = zip(*self._kept, strict=True)
        found = find_neighbours(np.stack(features), spread_queries(len(names)))

        def image_of(row: int) -> Image:
            read = self._predictor.read(names[row], names[row])
            height, width = self._predictor.preprocess.size
            gone = np.full((height, width, self._predictor.preprocess.channels), 255, np.uint8)
            return gone if read.image is None else read.image

        def draw() -> Any:
            return draw_neighbours(found, image_of=image_of, names=names, labels=labels)

        if save_picture(path, draw, dpi=130) is None:
            note(f"nearest neighbours in {path}")
