"""Formats of strings, each as a regular expression: RFC 3339, 3986, 4122, and the types of pydantic that write them."""

from __future__ import annotations

_YEAR = r"(?:[1-9]\d{3}|0[1-9]\d\d|00[1-9]\d|000[1-9])"
_LEAP_YEAR = r"(?:\d\d(?:0[48]|[2468][048]|[13579][26])|(?:0[48]|[2468][048]|[13579][26])00)"
_DAY = r"(?:(?:0[1-9]|1[0-2])-(?:0[1-9]|1\d|2[0-8])|(?:0[13-9]|1[0-2])-(?:29|30)|(?:0[13578]|1[02])-31)"
_DATE = rf"(?:{_YEAR}-{_DAY}|{_LEAP_YEAR}-02-29)"
_TIME = r"(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:\.\d{1,6})?(?:Z|[+-](?:[01]\d|2[0-3]):[0-5]\d)"

_SECONDS = r"\d{1,6}(?:\.\d{1,6})?S"
_HOURS = rf"T(?:\d{{1,6}}H(?:\d{{1,6}}M(?:{_SECONDS})?)?|\d{{1,6}}M(?:{_SECONDS})?|\d{{1,6}}H{_SECONDS}|{_SECONDS})"
_DAYS = r"(?:\d{1,3}Y(?:\d{1,4}M)?(?:\d{1,6}D)?|\d{1,4}M(?:\d{1,6}D)?|\d{1,6}D)"
_DURATION = rf"-?P(?:{_DAYS}(?:{_HOURS})?|{_HOURS}|\d{{1,6}}W)"

_BYTE = r"(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
_IPV4 = rf"{_BYTE}(?:\.{_BYTE}){{3}}"
_H = "[0-9A-Fa-f]{1,4}"
_LOW = rf"(?:{_H}:{_H}|{_IPV4})"  # the last 32 bits
_IPV6 = "(?:" + "|".join(
    [
        rf"(?:{_H}:){{6}}{_LOW}",
        *(rf"{_before}::(?:{_H}:){{{n}}}{_LOW}" for _before, n in (
            ("", 5),
            (f"(?:{_H})?", 4),
            *((rf"(?:(?:{_H}:){{0,{most}}}{_H})?", 4 - most) for most in range(1, 5)),
        )),
        rf"(?:(?:{_H}:){{0,5}}{_H})?::{_H}",
        rf"(?:(?:{_H}:){{0,6}}{_H})?::",
    ]
) + ")"  # fmt: skip


def _network() -> str:
    """Return the expression of IPv4 networks: behind the prefix all bits are 0."""
    found = [_IPV4, rf"{_IPV4}/32"]
    for bits in range(32):
        whole, rest = divmod(bits, 8)
        part = "|".join(str(byte) for byte in range(0, 256, 2 ** (8 - rest)))
        octets = [*[_BYTE] * whole, f"(?:{part})", *["0"] * (3 - whole)]
        found.append(r"\.".join(octets) + f"/{bits}")
    return "(?:" + "|".join(found) + ")"


_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_TOP = r"[A-Za-z](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_NAME = rf"(?:{_LABEL}\.){{0,8}}{_TOP}\.?"
_PORT = r"(?::(?:[1-9]\d{0,3}|[1-5]\d{4}|6[0-4]\d{3}))?"
_PATH_CHAR = r"(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})"
_TAIL = rf"(?:\?(?:{_PATH_CHAR}|[/?])*)?(?:#(?:{_PATH_CHAR}|[/?])*)?"
_USER = r"(?:(?:[A-Za-z0-9._~!$&'()*+,;=:-]|%[0-9A-Fa-f]{2})+@)?"
_AUTHORITY = rf"{_USER}(?:{_NAME}|{_IPV4}|\[{_IPV6}\]){_PORT}(?:/(?:{_PATH_CHAR}|/)*)?{_TAIL}"
_HTTP_URL = rf"[Hh][Tt][Tt][Pp][Ss]?://{_AUTHORITY}"
_URI = rf"[A-Za-z][A-Za-z0-9+.-]{{0,20}}:(?://{_AUTHORITY}|/?(?:{_PATH_CHAR}(?:{_PATH_CHAR}|/)*)?{_TAIL})"

_BASE64 = r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?"
_HEX = "[0-9a-fA-F]"


def _uuid(version: str = _HEX, variant: str = _HEX) -> str:
    return f"{_HEX}{{8}}-{_HEX}{{4}}-{version}{_HEX}{{3}}-{variant}{_HEX}{{3}}-{_HEX}{{12}}"


#: What a pydantic URL of http writes beside the format.
HTTP_URL_LENGTH = 2083

PATTERNS: dict[str, str] = {
    name: f"^(?:{pattern})$"
    for name, pattern in {
        "date": _DATE,
        "time": _TIME,
        "date-time": f"{_DATE}T{_TIME}",
        "duration": _DURATION,
        "uuid": _uuid(),
        **{f"uuid{version}": _uuid(str(version), "[89abAB]") for version in range(1, 9)},
        "ipv4": _IPV4,
        "ipv6": _IPV6,
        "ip": f"(?:{_IPV4}|{_IPV6})",
        "ipvanyaddress": f"(?:{_IPV4}|{_IPV6})",
        "ipv4interface": rf"{_IPV4}(?:/(?:3[0-2]|[12]?\d))?",
        "ipv6interface": rf"{_IPV6}(?:/(?:12[0-8]|1[01]\d|[1-9]?\d))?",
        "ipv4network": _network(),
        "ipv6network": rf"(?:{_IPV6}(?:/128)?|::/\d)",
        "uri": _URI,
        "http-url": _HTTP_URL,
        "hostname": _NAME,
        "email": r"[^\s@\"\\]{1,64}@[^\s@\"\\]{1,190}",
        "base64": _BASE64,
        "byte": _BASE64,
        "json-pointer": r"(?:/(?:[^~/]|~[01])*)*",
    }.items()
}
