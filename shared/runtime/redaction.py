"""Texts that others will read, without the secrets that errors like to quote."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

_HIDDEN: Final = "***"
#: Shorter ones are not looked for: they would black out half of every text.
_SHORTEST: Final = 4
#: Whatever stands between ``://`` and ``@``: the user and the password of a URL.
_USER_INFO: Final = re.compile(r"://[^\s/]*@")
_AUTHORIZATION: Final = re.compile(r"(?i)\b(bearer|basic)\s+[\w.~+/=-]{8,}")
_NAMES: Final = r"(?i)(password|secret|token|signature|credential|\bsig)"
_NAMED: Final = re.compile(_NAMES + r"""(=|["']\s*:\s*["'])[^\s&"',;)}]+""")


class Redactor:
    """Blacks out ``secrets`` wherever they stand, and whatever looks like one: passwords of URLs, authorization
    headers, values named password, secret, token or signature."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        # The longest first: one may be a part of another.
        self._secrets = sorted({secret for secret in secrets if len(secret) >= _SHORTEST}, key=len, reverse=True)

    def __call__(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, _HIDDEN)
        text = _USER_INFO.sub(f"://{_HIDDEN}@", text)
        text = _AUTHORIZATION.sub(rf"\1 {_HIDDEN}", text)
        return _NAMED.sub(rf"\1\2{_HIDDEN}", text)
