"""Ray's request router by sessions.

It uses `ray.serve.request_router`, whose stability is "alpha": the extra pins Ray's version.
"""

# Types are also checked where Ray is not installed.
# pyright: reportMissingImports=false

from __future__ import annotations

import time
from collections import Counter
from typing import Any

from ray.serve.request_router import PendingRequest, ReplicaID, RequestRouter, RunningReplica

from .ranking import groups, ranked

PLAN_S = 1.0
"""Seconds after which a request that was routed, and not sent, does not count any more: its client has gone."""


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
        # Ray counts a request when a replica has accepted it: all of a burst would find room at the same replica.
        self._planned: dict[str, tuple[ReplicaID, float]] = {}
        self._running: dict[str, ReplicaID] = {}
        self._n_running: Counter[ReplicaID] = Counter()

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        """Return groups of replicas, the preferred one first. Ray takes one that is not full of the first group.

        Args:
            candidate_replicas: All replicas.
            pending_request: What is routed.
        """
        if pending_request is None:
            return [candidate_replicas]
        pending_request.routing_context.should_backoff = True  # before all groups are tried again
        metadata = pending_request.metadata
        loads = self._loads(candidate_replicas, metadata.internal_request_id)
        if metadata.session_id:
            order = ranked(metadata.session_id, candidate_replicas, _name)
            found = groups(order, lambda replica: loads[replica.replica_id] < self._n_parallel)
        else:
            found = [candidate_replicas]
        best = min(found[0], key=lambda replica: loads[replica.replica_id])
        self._planned[metadata.internal_request_id] = best.replica_id, time.monotonic()
        return [[best], *found]

    def on_request_routed(
        self,
        pending_request: PendingRequest,
        replica_id: ReplicaID,
        result: Any,  # noqa: ARG002 - Ray's signature
    ) -> None:
        """Count a request that a replica has accepted."""
        request_id = pending_request.metadata.internal_request_id
        self._planned.pop(request_id, None)
        self._running[request_id] = replica_id
        self._n_running[replica_id] += 1

    def on_request_completed(
        self,
        replica_id: ReplicaID,  # noqa: ARG002 - Ray's signature
        internal_request_id: str,
    ) -> None:
        """Count it no more."""
        running_at = self._running.pop(internal_request_id, None)
        if running_at is not None:
            self._n_running[running_at] -= 1
            self._n_running += Counter()  # which leaves out those with none: replicas come and go

    def _loads(self, replicas: list[RunningReplica], request_id: str) -> dict[ReplicaID, int]:
        """Return how many requests each replica has besides one, as far as this process knows."""
        oldest = time.monotonic() - PLAN_S
        self._planned = {each: plan for each, plan in self._planned.items() if plan[1] >= oldest and each != request_id}
        sent = self._n_running + Counter(replica_id for replica_id, _ in self._planned.values())
        return {
            each.replica_id: max(sent[each.replica_id], self.replica_queue_len_cache.get(each.replica_id) or 0)
            for each in replicas
        }


def _name(replica: RunningReplica) -> str:
    return replica.replica_id.unique_id
