"""Ray's request router by sessions.

It uses `ray.serve.request_router`, whose stability is "alpha": the extra pins Ray's version.
"""

# Types are also checked where Ray is not installed.
# pyright: reportMissingImports=false

from __future__ import annotations

from typing import Any

from ray.serve.request_router import PendingRequest, RequestRouter, RunningReplica

from .ranking import groups, ranked


class SessionRouter(RequestRouter):
    """Routes a request to the replica of its session, or to another one when that has no room.

    The key is `session_id` of `DeploymentHandle.options`. Without one, the least busy replica is taken.
    """

    _n_parallel = 1

    def initialize_state(self, *, n_parallel: int, **_: Any) -> None:
        """Take what `RequestRouterConfig.request_router_kwargs` has.

        Args:
            n_parallel: How many requests a replica answers together: with as many it has no room.
        """
        self._n_parallel = n_parallel

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        """Return groups of replicas, the preferred one first. Ray takes the least busy replica that is not full.

        Args:
            candidate_replicas: All replicas.
            pending_request: What is routed.
        """
        if pending_request is None:
            return [candidate_replicas]
        pending_request.routing_context.should_backoff = True  # before all groups are tried again
        key = pending_request.metadata.session_id
        if key:
            return groups(ranked(key, candidate_replicas, _name), self._has_room)
        free = [replica for replica in candidate_replicas if self._has_room(replica)]
        return [group for group in (free, candidate_replicas) if group]

    def _has_room(self, replica: RunningReplica) -> bool:
        """Whether a replica answers fewer requests than it can, as far as this process knows."""
        n_running = self.replica_queue_len_cache.get(replica.replica_id)
        return n_running is None or n_running < self._n_parallel


def _name(replica: RunningReplica) -> str:
    return replica.replica_id.unique_id
