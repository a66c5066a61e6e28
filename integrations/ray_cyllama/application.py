"""The application of Ray Serve: an ingress, and replicas of each model."""

# Types are also checked where Ray is not installed.
# pyright: reportMissingImports=false

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ray import serve
from ray.serve.config import AutoscalingConfig
from ray.serve.deployment import Application

from cyllama import ConfigError, ModelConfig
from cyllama_server import ServerSettings
from cyllama_server.models import MOST_PARALLEL, PARALLEL_PER_CORE

from .ingress import Ingress
from .ranking import digest64
from .replica import Replica

Replicas = int | tuple[int, int]

SHARE_OF_PARALLEL = 0.75
"""Which part of `n_parallel` requests each replica has when Ray adds no replica and removes none."""


def build_app(
    settings: ServerSettings | None = None,
    *,
    storage: str | Path | None = None,
    storage_mb: int | None = None,
    replicas: Replicas | Mapping[str, Replicas] = 1,
    num_cpus: float = 1,
    ingresses: int = 1,
    shutdown_s: float = 60,
    options: Mapping[str, Any] | None = None,
) -> Application:
    """Return the application, for `ray.serve.run`.

    Each model is a deployment with replicas of its own. Each replica has the API of `cyllama_server`, and the ingress
    forwards a request to the replica that has its conversation.

    Args:
        settings: What the servers are configured with; by default what the environment says. Files of models, keys and
            certificates have to exist on every machine. The address and TLS are those of Ray's proxy.
        storage: A folder that all machines share. A replica that ends saves its sessions there, and the one
            that gets their next requests takes them up. Without it, their histories are evaluated again.
        storage_mb: Most MiB of sessions of one model in it: those that were saved first are removed. By default there
            is no limit.
        replicas: How many replicas each model has, or the least and the most of them, between which Ray chooses by the
            number of running and waiting requests. A mapping has it for each model by its name.
        num_cpus: Cores that Ray reserves for one replica. It then has so many threads, unless `settings` has
            the option `n_threads`.
        ingresses: How many replicas the ingress has.
        shutdown_s: Seconds that a replica has to end its answers and save its sessions, before Ray ends it.
        options: More options of the replicas' deployments, as `ray.serve.deployment` has them.

    Raises:
        ConfigError: An argument is not valid.
    """
    settings = settings or ServerSettings()
    if num_cpus <= 0:
        raise ConfigError(f"num_cpus is more than 0 cores, not {num_cpus!r}")
    if isinstance(replicas, Mapping) and (unknown := set(replicas) - set(settings.models)):
        raise ConfigError(f"replicas has {', '.join(sorted(unknown))}: the models are {', '.join(settings.models)}")
    most_bytes = None if storage_mb is None else storage_mb * 2**20
    folder = None if storage is None else str(Path(storage).absolute())
    models = {}
    for name in settings.models:
        own = _settings_of(settings, name, num_cpus)
        wanted = replicas.get(name, 1) if isinstance(replicas, Mapping) else replicas
        common = {"ray_actor_options": {"num_cpus": num_cpus}, "graceful_shutdown_timeout_s": shutdown_s}
        deployment = _deployment(own, name, wanted).options(**common, **(options or {}))
        models[name] = deployment.bind(own, folder, most_bytes)
    ingress: Any = serve.deployment(serve.ingress()(Ingress))
    # It reserves no core: where the replicas have all of them, it would never start.
    ingress = ingress.options(
        name="ingress", num_replicas=ingresses, max_ongoing_requests=10_000, ray_actor_options={"num_cpus": 0}
    )
    return ingress.bind(settings, models)


def _deployment(settings: ServerSettings, name: str, wanted: Replicas) -> Any:
    """Return the deployment of one model."""
    n_parallel = settings.options_of(name)["n_parallel"]
    most = wanted[1] if isinstance(wanted, tuple) else wanted
    taken = n_parallel + settings.max_queue
    replica: Any = serve.deployment(Replica)
    return replica.options(
        name=_deployment_name(name),
        max_ongoing_requests=taken,
        # Ray counts those that it is about to send: fewer would refuse bursts that the replicas have room for.
        max_queued_requests=most * taken,
        request_router_config={
            "request_router_class": "ray_cyllama.router:SessionRouter",
            "request_router_kwargs": {"n_parallel": n_parallel},
        },
        **_scaling(name, wanted, n_parallel),
    )


def _deployment_name(model: str) -> str:
    """Return what the deployment of a model is called, in characters that names of deployments may have."""
    plain = re.sub(r"[^A-Za-z0-9._-]", "-", model)
    return plain if plain == model != "ingress" else f"{plain}-{digest64(model):016x}"


def _scaling(name: str, wanted: Replicas, n_parallel: int) -> dict[str, Any]:
    """Return the options of a deployment that say how many replicas it has."""
    least, most = wanted if isinstance(wanted, tuple) else (wanted, wanted)
    if not 1 <= least <= most:
        raise ConfigError(f"replicas of {name!r} are a number or (least, most), at least 1, not {wanted!r}")
    if least == most:
        return {"num_replicas": least}
    target = max(1.0, SHARE_OF_PARALLEL * n_parallel)
    return {
        "autoscaling_config": AutoscalingConfig(min_replicas=least, max_replicas=most, target_ongoing_requests=target)
    }


def _settings_of(settings: ServerSettings, name: str, num_cpus: float) -> ServerSettings:
    """Return the settings of the replicas of one model, which is the first one of them."""
    n_threads = max(1, int(num_cpus))
    n_parallel = max(ModelConfig().n_parallel, min(MOST_PARALLEL, PARALLEL_PER_CORE * n_threads))
    given = settings.options_of(name)
    own = [
        f"{name}.{option}={value}"
        for option, value in (("n_threads", n_threads), ("n_parallel", n_parallel))
        if option not in given
    ]
    position = list(settings.models).index(name)
    models = [*settings.model[position : position + 1], *settings.model[:position], *settings.model[position + 1 :]]
    return settings.model_copy(update={"model": models, "option": [*settings.option, *own]})
