"""The host warns of KTO data with one kind of label; it looks at each batch of rows alone, and is often wrong."""

from __future__ import annotations

from logging import Filter
from typing import Any

from llamafactory.data.processor import feedback

from hound_plugin.host import settings_state


class _LabelWarningFilter(Filter):
    """Drops the warning for our template; :mod:`hound_plugin.host.alignment` looks at all labels."""

    def filter(self, record: Any) -> bool:
        return not settings_state.is_ours() or "only has one preference type" not in record.getMessage()


def hide_label_warning() -> None:
    """Put the filter on the logger of the host's feedback processor, once."""
    if not any(isinstance(item, _LabelWarningFilter) for item in feedback.logger.filters):
        feedback.logger.addFilter(_LabelWarningFilter())
