"""Responses that may be continued."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, NamedTuple

from .errors import ApiError
from .tenants import Tenant

MOST_RESPONSES = 1024
"""How many are kept of each tenant; those that were unused for longest are forgotten."""


class StoredResponse(NamedTuple):
    """A response, and all that was said up to it.

    Attributes:
        body: What the client got.
        messages: The messages, those of the answer included, without instructions.
        conversation: The name of the conversation.
    """

    body: dict[str, Any]
    messages: list[dict[str, Any]]
    conversation: str | None


class StoredResponses:
    """The latest responses of each tenant. An event loop uses them, and no other thread."""

    def __init__(self) -> None:
        self._of_tenant: dict[Tenant, OrderedDict[str, StoredResponse]] = {}

    def find(self, tenant: Tenant, response_id: str, *, status: int = 404) -> StoredResponse:
        """Return the response of an id.

        Raises:
            ApiError: No response has this id, or it is another tenant's.
        """
        found = self._of_tenant.get(tenant, OrderedDict()).get(response_id)
        if found is None:
            raise ApiError(
                status,
                f"there is no response {response_id!r:.80}: it is not stored, or was forgotten",
                code="response_not_found" if status == 404 else "previous_response_not_found",
                param=None if status == 404 else "previous_response_id",
            )
        self._of_tenant[tenant].move_to_end(response_id)
        return found

    def add(self, tenant: Tenant, response: StoredResponse) -> None:
        """Keep a response."""
        kept = self._of_tenant.setdefault(tenant, OrderedDict())
        kept[response.body["id"]] = response
        while len(kept) > MOST_RESPONSES:
            kept.popitem(last=False)

    def remove(self, tenant: Tenant, response_id: str) -> None:
        """Forget a response, if there is one of that id.

        Raises:
            ApiError: No response has this id, or it is another tenant's.
        """
        self.find(tenant, response_id)
        del self._of_tenant[tenant][response_id]
