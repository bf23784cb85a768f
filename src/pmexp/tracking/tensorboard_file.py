"""Mirrors a run to an event file of TensorBoard in its folder: scalars by training step, and its settings.

TensorBoard keeps scalars in float32. It names a run by its folder, so `tensorboard --logdir runs/<name>` has
those of one experiment.
"""

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pmexp.config import RunConfig
from pmexp.tracking.record import LoggedValue, Record
from pmexp.tracking.run_file import RunFile
from pmexp.tracking.tracker import Status, Tracker

_PREFIX = "events.out.tfevents."  # by which TensorBoard knows the files to read
_VERSION = "brain.Event:2"  # the format's


class TensorboardTracker(Tracker):
    """Opens event files."""

    title = "TensorBoard"
    package = "tensorboard"

    def place(self, config: RunConfig) -> str:
        return f"tracking.tensorboard: {config.folder}"

    def open(self, config: RunConfig, record: Record) -> "EventFile":
        import tensorboard.summary.writer.record_writer  # noqa: F401  (fails here where it cannot be had)

        return EventFile(record)


class EventFile(RunFile):
    """Keeps a run's event file. One that is written anew has the next number: a TensorBoard that reads the
    run goes on to a file with a later name, and never looks again at one that it has read."""

    def files(self) -> list[Path]:
        return sorted(self._record.folder.path.glob(f"{_PREFIX}*"))

    def new_file(self) -> Path:
        numbers = [int(suffix) for file in self.files() if (suffix := file.name[len(_PREFIX) :]).isdigit()]
        return self._record.folder.path / f"{_PREFIX}{max(numbers, default=0) + 1:06}"

    def head(self, first: LoggedValue | None) -> bytes:
        if first is None:
            return b""
        from tensorboard.plugins.hparams.metadata import SESSION_START_INFO_TAG

        settings = {name: _hparam(value) for name, value in self._record.settings.items()}
        session = {
            "group_name": self._record.run_id,
            "start_time_secs": first.time / 1000,
            "hparams": settings,
        }
        begin = _event(first.time, 0, file_version=_VERSION)
        return begin + _session(SESSION_START_INFO_TAG, first.time, session_start_info=session)

    def encoded(self, values: Sequence[LoggedValue]) -> bytes:
        return b"".join(
            _event(time, step, summary=_summary(metric, simple_value=math.nan if value is None else value))
            for metric, time, step, value in values
        )

    def end(self, status: Status, journal: Sequence[LoggedValue]) -> bytes:
        if status == "KILLED" or not journal:  # it may go on
            return b""
        from tensorboard.plugins.hparams import api_pb2
        from tensorboard.plugins.hparams.metadata import SESSION_END_INFO_TAG

        word = "STATUS_SUCCESS" if status == "FINISHED" else "STATUS_FAILURE"
        session = {"status": api_pb2.Status.Value(word), "end_time_secs": journal[-1].time / 1000}
        return _session(SESSION_END_INFO_TAG, journal[-1].time, session_end_info=session)


def _hparam(value: Any) -> dict[str, Any]:
    if isinstance(value, bool):
        return {"bool_value": value}
    if isinstance(value, (int, float)):
        return {"number_value": value}
    return {"string_value": str(value)}


def _session(tag: str, time: int, **session: Mapping[str, Any]) -> bytes:
    """An event of the plugin for settings. Its maps are encoded in order: else every process has its own."""
    from tensorboard.plugins.hparams import metadata
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    told = HParamsPluginData(version=metadata.PLUGIN_DATA_VERSION, **session)
    content = told.SerializeToString(deterministic=True)
    plugin = {"plugin_data": {"plugin_name": metadata.PLUGIN_NAME, "content": content}}
    return _event(time, 0, summary=_summary(tag, metadata=plugin, tensor=metadata.NULL_TENSOR))


def _summary(tag: str, **value: Any) -> dict[str, Any]:
    return {"value": [{"tag": tag, **value}]}


def _event(time: int, step: int, **content: Any) -> bytes:
    """One event as it lies in the file. `time`: milliseconds since 1970."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.summary.writer.record_writer import RecordWriter

    record = io.BytesIO()
    event = Event(wall_time=time / 1000, step=step, **content)
    RecordWriter(record).write(event.SerializeToString())
    return record.getvalue()
