"""The type checker that the tests let run on every call: beartype, an int being welcome where a float is."""

from __future__ import annotations

from beartype import BeartypeConf, beartype

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
