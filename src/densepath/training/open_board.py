"""The TensorBoard of a training that is put together."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from densepath.training.parts import Training
from densepath.training.tensorboard import FILE, TensorBoard, flat_fields


def open_board(training: Training) -> TensorBoard:
    """The board of this training, standing where the training stands; it is said how to look at it.

    Raises:
        MissingPackageError: tensorboardX is not installed.
        OutputError: its file cannot be written.
    """
    folder = training.folder
    board = TensorBoard(
        folder.path,
        step=training.steps_done,
        mid_epoch=training.position.step > 0,
        preprocess=folder.preprocess,
        labels=folder.images.train.class_names,
        hyper_parameters=flat_fields(training.recipe.to_dict()),
        confusion=lambda: count_confusion(training),
    )
    logs = (folder.path / FILE).parent
    training.progress.say(f"curves: tensorboard --logdir {logs}; {folder.path / 'curves.png'}")
    return board


def count_confusion(training: Training) -> NDArray[np.int64] | None:
    """int64 [true classes, answers] of the evaluation images; None of a multi-label set.

    Of several processes the leading one counts its own share.
    """
    if training.loss.multi_label:
        return None
    model = training.step.judged(training.kept)
    num_classes = training.network.num_classes
    counts = np.zeros((num_classes, num_classes), np.int64)
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            for batch in training.eval_loader:
                if len(batch.images):
                    images = batch.images.to(training.device, memory_format=training.memory_format)
                    answers = model(images).argmax(1).cpu().numpy()
                    np.add.at(counts, (batch.targets.numpy(), answers), 1)
    finally:
        model.train(was_training)
    return counts
