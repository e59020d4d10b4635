"""The callback that `config.yaml` names."""

from __future__ import annotations

from .callback import MeterholdCallback

callback = MeterholdCallback()
