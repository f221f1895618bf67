"""A recipe with nothing left open: what it does not say comes from the weights or the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from densepath.data.record import place_of
from densepath.data.sources import built_in
from densepath.errors import RecipeError
from densepath.files import expand_user
from densepath.images.intensity import Intensity
from densepath.images.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess
from densepath.models.build import resolve_spec
from densepath.models.catalogue import find_spec
from densepath.models.spec import ModelSpec
from densepath.training.recipe import Recipe
from densepath.training.recipe_file import make_recipe
from densepath.training.recipe_sections import NO_INTENSITY, DataSection
from densepath.weights.adapt import adapt_preprocess
from densepath.weights.checkpoint import Checkpoint

# The share of the short side that the evaluation crop keeps: 224 of 256 pixels.
CROP_SHARE = 0.875
# Up to this side images are trained at their own size with shifts of a few pixels
# (arXiv:1608.06993, section 4.1), above it with random resized crops (arXiv:1409.4842).
LARGEST_SMALL_SIDE = 64
# A few epochs for INT8 are to see images as the network knows them, not to teach it new ones.
MILD_SCALE = (0.5, 1.0)


def resolve(recipe: Recipe, checkpoint: Checkpoint | None) -> Recipe:
    """`recipe` with every field that was left open filled in.

    Args:
        recipe: as the user gave it.
        checkpoint: the weights that `recipe.model.weights` names.

    Raises:
        RecipeError: no model, or another model than the weights are of.
    """
    spec = find_model(recipe, checkpoint)
    channels = recipe.data.channels or (3 if checkpoint is None else checkpoint.in_channels)
    preprocess = _preprocess_fields(recipe, spec, checkpoint, channels)
    small = max(preprocess["size"]) <= LARGEST_SMALL_SIDE
    data = absolute_places(recipe.data)
    augment = recipe.augment.model_dump()
    if augment["crop"] is None:
        augment["crop"] = "pad_crop" if small else "random_resized_crop"
    if augment["hflip"] is None:
        augment["hflip"] = 0.0 if built_in(data.source) == "digits" else 0.5
    random_crops = augment["crop"] in ("random_resized_crop", "clamped_crop")
    given = recipe.augment.model_fields_set
    if recipe.quantization.target != "none" and random_crops and "scale" not in given:
        augment["scale"] = MILD_SCALE
    values = recipe.model_dump(exclude_unset=True)
    values["model"] = recipe.model.model_dump() | {
        "name": spec.name,
        "weights": recipe.model.weights and _weights_from(recipe.model.weights),
        "stem": spec.arch.stem,
        "bn_eps": spec.arch.bn_eps,
        "stem_pool": spec.arch.stem_pool,
    }
    values["data"] = data.model_dump() | {"channels": channels}
    values["data"]["validation_fraction"] = data.held_out
    return make_recipe(values | {"preprocess": preprocess, "augment": augment})


def absolute_places(data: DataSection) -> DataSection:
    """`data` with places that are the same seen from any folder (`record.place_of`).

    Raises:
        DatasetError: the name of a set that comes with densepath, and a folder here.
    """
    places: dict[str, Any] = {
        "source": place_of(data.source),
        "root": data.root and place_of(data.root),
    }
    for split in ("train", "validation", "test"):
        named = getattr(data, split)
        inside = named is not None and (Path(places["source"]) / named).is_dir()
        places[split] = named if named is None or inside else place_of(named)
    return data.model_copy(update=places)


def _weights_from(weights: str) -> str:
    """A path from the root; a published name as it is."""
    return place_of(weights) if expand_user(weights).exists() else weights


def is_resolved(recipe: Recipe) -> bool:
    """Whether nothing is left open that the weights would fill in, as in a run folder's recipe."""
    preprocess = {**dict(recipe.preprocess), "intensity": ""}  # None is an intensity, too
    return None not in [recipe.model.name, recipe.data.channels, *preprocess.values()]


def find_model(recipe: Recipe, checkpoint: Checkpoint | None) -> ModelSpec:
    """The network that the recipe asks for.

    Raises:
        RecipeError: no model, or another model than the weights are of.
    """
    section = recipe.model
    switches: dict[str, Any] = {
        "stem": section.stem,
        "bn_eps": section.bn_eps,
        "stem_pool": section.stem_pool,
    }
    if checkpoint is None:
        if section.name is None:
            raise RecipeError(
                "no model: name one, as in `densepath train densenet121`, or set model.name. "
                "`densepath models` lists them."
            )
        return resolve_spec(section.name, **switches)
    if section.name is not None and find_spec(section.name).name != checkpoint.spec.name:
        raise RecipeError(
            f"model.name is {section.name!r}, but the weights {section.weights} are of "
            f"{checkpoint.spec.name}. Leave one of them out."
        )
    for name, value in switches.items():
        own = getattr(checkpoint.spec.arch, name)
        if value not in (None, own):
            raise RecipeError(
                f"model.{name} is {value!r}, but the weights {section.weights} are of a network "
                f"with {own!r}. Leave it out: the weights bring their own."
            )
    return checkpoint.spec


def _preprocess_fields(
    recipe: Recipe, spec: ModelSpec, checkpoint: Checkpoint | None, channels: int
) -> dict[str, Any]:
    """The preprocess section with every field: given, else the weights', else the model's."""
    given = {k: v for k, v in recipe.preprocess.model_dump().items() if v is not None}
    if isinstance(given.get("size"), int):
        given["size"] = (given["size"], given["size"])
    colour = channels == len(IMAGENET_MEAN)
    size = given.get("size", (spec.input_size, spec.input_size))
    fields: dict[str, Any] = {
        "size": size,
        "resize_short": 0 if max(size) <= LARGEST_SMALL_SIDE else round(min(size) / CROP_SHARE),
        "interpolation": "bilinear",
        "side_rounding": "truncate",
        "crop_rounding": "round",
        "mean": IMAGENET_MEAN if colour else (0.5,) * channels,
        "std": IMAGENET_STD if colour else (0.5,) * channels,
        "intensity": None,
    }
    if checkpoint is not None:
        own = adapt_preprocess(checkpoint.preprocess, channels)
        known = {name: getattr(own, name) for name in fields}
        known["resize_short"] = known["resize_short"] or 0
        known["intensity"] = own.intensity and own.intensity.to_text()
        if "size" in given:  # The crop of another size is not the one of the weights.
            del known["size"], known["resize_short"]
        fields |= known
    fields |= given
    if not len(fields["mean"]) == len(fields["std"]) == channels:
        raise RecipeError(
            f"preprocess.mean has {len(fields['mean'])} values and preprocess.std "
            f"{len(fields['std'])}; the images have {channels} channels."
        )
    return fields


def build_preprocess(recipe: Recipe) -> Preprocess:
    """The evaluation-time image arithmetic of a resolved recipe."""
    fields = recipe.preprocess.model_dump()
    fields["resize_short"] = fields["resize_short"] or None
    fields["intensity"] = to_intensity(fields["intensity"])
    return Preprocess(**fields)


def to_intensity(text: str | None) -> Intensity | None:
    """The setting that a resolved recipe's `preprocess.intensity` says."""
    return None if text in (None, NO_INTENSITY) else Intensity.parse(str(text))
