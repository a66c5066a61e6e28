"""Who a request comes from: API keys separate tenants."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from dataclasses import dataclass

from starlette.requests import Request

from .errors import ApiError


@dataclass(frozen=True)
class Tenant:
    """The owner of sessions.

    Attributes:
        id: What separates its sessions from those of others: a digest of its key. Empty where there are no keys.
    """

    id: str


class Tenants:
    """The keys that requests may present.

    Args:
        keys: All keys; without any, everybody is one tenant.
        admin_key: The key that may read what concerns all tenants.
    """

    def __init__(self, keys: Iterable[str], admin_key: str | None = None) -> None:
        self._tenants = {_digest(key): Tenant(_digest(key).hex()[:16]) for key in keys}
        self._admin = None if admin_key is None else _digest(admin_key)

    def identify(self, request: Request) -> Tenant:
        """Return the tenant that a request comes from.

        Raises:
            ApiError: It has no valid key.
        """
        if not self._tenants:
            return Tenant("")
        presented = _presented(request)
        found = None if presented is None else self._find(_digest(presented))
        if found is None:
            missing = "there is no API key in the header Authorization: Bearer, or x-api-key"
            raise ApiError(
                401,
                missing if presented is None else "the API key is not valid",
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )
        return found

    def viewer(self, request: Request) -> Tenant | None:
        """Return the tenant whose sessions a request may see, or `None` if it may see those of all.

        Raises:
            ApiError: It has no valid key.
        """
        if self._is_admin(request) or not (self._tenants or self._admin is not None):
            return None
        return self.identify(request)

    def check_admin(self, request: Request) -> None:
        """Raise `ApiError` for a request that may not read what concerns all tenants."""
        if (self._tenants or self._admin is not None) and not self._is_admin(request):
            raise ApiError(
                401,
                "this needs the admin key of the server (--admin-key), as Authorization: Bearer KEY",
                code="invalid_api_key",
            )

    def _is_admin(self, request: Request) -> bool:
        presented = _presented(request)
        return (
            self._admin is not None and presented is not None and hmac.compare_digest(_digest(presented), self._admin)
        )

    def _find(self, digest: bytes) -> Tenant | None:
        # A dict's look-up of a digest would tell by its time how much of it is right, though nothing about the key.
        matches = [tenant for known, tenant in self._tenants.items() if hmac.compare_digest(known, digest)]
        return matches[0] if matches else None


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def _presented(request: Request) -> str | None:
    """Return the key that a request presents, in OpenAI's way or in Anthropic's."""
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and key.strip():
        return key.strip()
    return request.headers.get("x-api-key") or None
