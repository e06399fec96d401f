"""Event files of TensorBoard."""

import io
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog  # pyright: ignore[reportAttributeAccessIssue]
from tensorboardX.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue]


class TensorBoardWriter:
    """Write an event file for TensorBoard, which discards what earlier files of the folder hold of the same steps.

    Events are written synchronously. tensorboardX's own writer uses a thread; once a full disk or a clock that is set
    back has ended it, a run waits for it forever.
    """

    def __init__(self, folder: Path, first_step: int):
        """Start an event file in `folder` for the steps from `first_step`."""
        folder.mkdir(parents=True, exist_ok=True)
        # names begin with the time in whole seconds, which may not be unique; readers sort the files by name
        self._events = EventsWriter(str(folder / "events"), f".{time.time_ns()}")
        self._write(first_step, session_log=SessionLog(status=SessionLog.START))

    def add(self, step: int, scalars: Mapping[str, float]) -> None:
        """Write the scalars of a step, by tag."""
        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in scalars.items()]
        self._write(step, summary=Summary(value=values))

    def add_image(self, step: int, tag: str, png: bytes) -> None:
        """Write an image of a step."""
        with Image.open(io.BytesIO(png)) as image:
            width, height = image.size
        content = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=png)
        self._write(step, summary=Summary(value=[Summary.Value(tag=tag, image=content)]))

    def _write(self, step: int, **content: Any) -> None:
        self._events.write_event(Event(wall_time=time.time(), step=step, **content))

    def flush(self) -> None:
        """Write all events to the file."""
        self._events.flush()

    def close(self) -> None:
        """Close the file."""
        self._events.close()
