"""Turn pictures, as users have them, into the images of a run: the steps of its data loader, in one place."""

import dataclasses
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeGuard

import numpy as np
from jax.core import Tracer
from PIL import Image

from anchor_jax.core import checks
from anchor_jax.core.errors import UserError, UserTypeError
from anchor_jax.data import orientation as orientations
from anchor_jax.data import resampling
from anchor_jax.data.decoding import Example, convert, fit, open_image, pixels_of, upper_8_bits, upright_image
from anchor_jax.data.files import log_once, reading_errors
from anchor_jax.data.modes import MODES
from anchor_jax.runtime.paths import absolute_path

_KINDS = "a path, the bytes of an image file, a PIL image or an array"
_ARRAY_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}  # channels of an array -> what Pillow calls it


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """The steps from pictures to the images of a run, uint8 `[B, H, W, C]`, which are those of its data loader.

    Decode; turn upright, if the EXIF data say how; convert to grayscale or RGB (transparency is dropped, and so are the
    lower 8 of 16 bits per channel); resize so that the picture covers H and W, and crop the center.

    Attributes:
      height: H.
      width: W.
      channels: C: 1 (grayscale) or 3 (RGB). With another number, only arrays and files of as many channels are taken.
      crop_fraction: what the central crop covers of the shorter side, see `anchor_jax.data.load`.
      interpolation: "bilinear" or "bicubic", always with antialiasing; "auto" is bicubic.
      resizing: "box", "shorter_side" or "stretch", see `anchor_jax.data.load`; "auto" is "box".
      orientation: "exif" or "auto" turns pictures upright; "stored" ignores their orientation, as version 0.1.
      resize: whether the images of the run were resized. Pictures of another size always are; if those of the run were
        not, a log line says so.

    Example:
      >>> import io
      >>> import anchor_jax as aj
      >>> import numpy as np
      >>> from PIL import Image
      >>> preprocessing = aj.data.Preprocessing(height=32, width=32, channels=3)
      >>> file = io.BytesIO()
      >>> Image.new("L", (500, 300)).save(file, "jpeg")
      >>> preprocessing([file.getvalue(), Image.new("RGBA", (60, 40)), np.zeros((48, 64, 3), np.uint8)]).shape
      (3, 32, 32, 3)
    """

    height: int
    width: int
    channels: int
    crop_fraction: float = 1.0
    interpolation: str = resampling.AUTO
    resizing: str = resampling.AUTO
    orientation: str = orientations.AUTO
    resize: bool = True

    def __post_init__(self):
        for name in ("height", "width", "channels"):
            object.__setattr__(self, name, checks.count(name, getattr(self, name)))
        fraction = checks.static_number("crop_fraction", self.crop_fraction)
        if not fraction:
            raise UserError("crop_fraction must be in (0, 1]; got 0")
        object.__setattr__(self, "crop_fraction", fraction)
        resampling.check_interpolation(self.interpolation)
        resampling.check_resizing(self.resizing)
        orientations.check_orientation(self.orientation)
        object.__setattr__(self, "resize", checks.flag("resize", self.resize))

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """H, W and C of the images."""
        return self.height, self.width, self.channels

    def __call__(self, pictures: Any) -> Any:
        """Return the images of one picture or several.

        Args:
          pictures: one or several of: the path of an image file, its bytes, the open file, a PIL image, or an array
            uint8 or uint16 `[h, w]` or `[h, w, c]`, whose c is 1 (grayscale), 2 (and transparency), 3 (RGB) or 4
            (RGBA); or an array `[B, h, w, c]`. An array with the height and width of the run's images counts as resized
            and cropped. A batch uint8 `[B, H, W, C]` is returned as it is.

        Returns:
          uint8 `[B, H, W, C]`; B is 1 for one picture.

        Raises:
          UserTypeError: a picture has another type or dtype.
          UserError: a picture cannot be read, or its channels cannot be converted; the message says which one it is.
        """
        return self.batch("pictures", pictures)

    def batch(self, name: str, pictures: Any) -> Any:
        """Return what a call does.

        Args:
          name: what error messages call the pictures.
          pictures: see a call.
        """
        if checks.is_array_of_numbers(pictures):
            if not _has_16_bits(pictures):
                checks.array(name, pictures, "uint8", "[...]", checks.AS_STORED)
                if pictures.shape[1:] == self.image_shape:
                    return pictures
            several = self._pictures_of_array(name, pictures)
        elif checks.is_several(pictures) and not _is_bytes(pictures) and not _is_file(pictures):
            several = tuple(pictures)
        else:
            several = (pictures,)
        if not several:
            raise UserError(f"{name} must not be empty")
        names = names_of(name, len(several))
        opened = [self._opened(*pair) for pair in zip(names, several, strict=True)]
        images = np.empty((len(several), *self.image_shape), np.uint8)

        def fill(row: int) -> None:
            images[row] = self._image(names[row], opened[row])

        pool = ThreadPoolExecutor(os.cpu_count() or 1)
        try:
            list(pool.map(fill, range(len(several))))
        finally:
            pool.shutdown(cancel_futures=True)
        return images

    def _pictures_of_array(self, name: str, array: Any) -> tuple[np.ndarray, ...]:
        """Return the pictures in an array of numbers: one in two or three axes, several in four."""
        if array.ndim > 4 or (array.ndim > 2 and not self._takes(array.shape[-1])) or isinstance(array, Tracer):
            has_channels_first = array.ndim in (3, 4) and self._takes(array.shape[-3])
            if has_channels_first and array.shape[-2:] != self.image_shape[:2]:
                axes = "(1, 2, 0)" if array.ndim == 3 else "(0, 2, 3, 1)"
                raise UserError(f"{name} must have their channels last; got {array.shape}; pass {name}.transpose{axes}")
            checks.stored_images(name, array, self.image_shape)  # raises an error that says how to fix the array
        host = np.asarray(array)
        return tuple(host) if host.ndim == 4 else (host,)

    def _takes(self, channels: int) -> bool:
        return channels in _ARRAY_MODES if self.channels in MODES else channels == self.channels

    def _opened(self, name: str, picture: Any) -> Any:
        """Check the type of a picture; return an `Example`, a PIL image whose pixels are read, or an array."""
        if _is_file(picture):
            picture = picture.read()
        if _is_bytes(picture):
            return Example(bytes(picture), 0, name)
        if isinstance(picture, str | os.PathLike):
            path = absolute_path(name, picture)
            if path.is_dir():
                raise UserError(
                    f"{name} is the folder '{path}'; give its files, such as list(Path('{path}').iterdir())"
                )
            return Example(path, 0, str(path))
        if isinstance(picture, Image.Image):
            with reading_errors(name, "give another picture"):  # here, because the same image may occur twice
                picture.load()
                orientations.recorded(picture)
            return picture
        if not checks.is_array_of_numbers(picture):
            raise UserTypeError(f"{name} must be {_KINDS}; got {checks.described(picture)}")
        if not _has_16_bits(picture):
            checks.array(name, picture, "uint8", "[...]", checks.AS_STORED)
        array = np.asarray(picture)
        if array.ndim == 1:
            raise UserError(f"{name} must be [h, w] or [h, w, c]; got {array.shape}; of an image file, pass .tobytes()")
        if array.ndim not in (2, 3) or not self._takes(array.shape[2] if array.ndim == 3 else 1):
            allowed = f"[h, w, c] with {self.channels}"
            if self.channels in MODES:
                allowed = "[h, w], or [h, w, c] with 1 to 4"
            raise UserError(f"{name} must be {allowed} channels; got {array.shape}")
        return array

    def _image(self, name: str, picture: Any) -> np.ndarray:
        """Return the image of one picture, uint8 `[H, W, C]`."""
        if isinstance(picture, np.ndarray):
            return self._image_of_array(name, picture)
        if isinstance(picture, Image.Image):
            with reading_errors(name, "give another picture"):
                return self._image_of_opened(name, picture)
        with open_image(picture) as image:
            return self._image_of_opened(picture.origin, image)

    def _image_of_opened(self, name: str, image: Image.Image) -> np.ndarray:
        if self.orientation == orientations.STORED and orientations.recorded(image) != 1:
            line = "%s has an orientation in its EXIF data, which is ignored, as when the run was trained"
            log_once(line, name)
        if mode := MODES.get(self.channels):
            return self._fitted(name, upright_image(image, mode, name, self.orientation))
        if image.mode not in (_ARRAY_MODES.get(self.channels), None):
            raise UserError(
                f"{name} has the mode {image.mode}, but images of the run have {self.channels} channels; give arrays "
                f"uint8 [h, w, {self.channels}]"
            )
        upright = upright_image(image, image.mode, name, self.orientation)
        return self._image_of_array(name, pixels_of(upright))

    def _image_of_array(self, name: str, array: np.ndarray) -> np.ndarray:
        array = upper_8_bits(array) if _has_16_bits(array) else array
        array = array[..., None] if array.ndim == 2 else array
        if mode := MODES.get(self.channels):
            image = Image.fromarray(array if array.shape[-1] > 1 else array[..., 0])
            image = convert(image, mode, name)
            is_fitted = array.shape[:2] == self.image_shape[:2]
            return pixels_of(image) if is_fitted else self._fitted(name, image)
        if array.shape == self.image_shape:
            return array
        channels = [self._fitted(name, Image.fromarray(channel)) for channel in np.moveaxis(array, -1, 0)]
        return np.concatenate(channels, axis=-1)

    def _fitted(self, name: str, image: Image.Image) -> np.ndarray:
        if not self.resize and (image.height, image.width) != self.image_shape[:2]:
            line = "%s is %dx%d: pictures are resized to %dx%d, as those of the run did not have to be"
            sizes = image.height, image.width, self.height, self.width
            log_once(line, name, *sizes)
        size = self.height, self.width
        return pixels_of(fit(image, size, self.crop_fraction, self.interpolation, self.resizing))


def names_of(name: str, num: int) -> list[str]:
    """Return what error messages call each of several pictures.

    >>> names_of("picture", 1), names_of("pictures", 2)
    (['picture'], ['pictures[0]', 'pictures[1]'])
    """
    return [name] if num == 1 else [f"{name}[{row}]" for row in range(num)]


def _is_bytes(picture: Any) -> TypeGuard[bytes | bytearray | memoryview]:
    return isinstance(picture, bytes | bytearray | memoryview)


def _is_file(picture: Any) -> bool:
    return hasattr(picture, "read") and not isinstance(picture, Image.Image)


def _has_16_bits(array: Any) -> bool:
    return array.dtype.kind == "u" and array.dtype.itemsize == 2 and array.size > 0
