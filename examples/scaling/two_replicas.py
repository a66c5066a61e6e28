"""Two replicas of a model on Ray Serve: conversations keep theirs, and one that ends leaves its sessions to the other.

It starts a local cluster of Ray, and needs the extra `cyllama[ray]`.
"""

# Types are also checked where Ray is not installed.
# pyright: reportMissingImports=false

import time
from typing import Any

import openai
import ray
from ray import serve

from cyllama_server import ServerSettings
from ray_cyllama import build_app

PORT = 8765
NAMES = ["Ada", "Ben", "Eva", "Tom", "Mia", "Leo"]


def run(replicas: int) -> None:
    """Run the application, or change how many replicas it has."""
    app = build_app(ServerSettings(), storage="sessions", replicas=replicas, num_cpus=1)
    serve.run(app)
    models = serve.status().applications["default"].deployments
    while models["tiny-chat"].replica_states != {"RUNNING": replicas}:
        time.sleep(0.2)
        models = serve.status().applications["default"].deployments


def say(client: openai.OpenAI, history: list[Any], text: str) -> tuple[str, str, int]:
    """Say something; return the answer, the replica that gave it, and how many tokens of the prompt it knew."""
    history.append({"role": "user", "content": text})
    response = client.chat.completions.with_raw_response.create(model="tiny-chat", messages=history, temperature=0)
    completion = response.parse()
    history.append(completion.choices[0].message)
    assert completion.usage is not None
    assert completion.usage.prompt_tokens_details is not None
    return (
        completion.choices[0].message.content or "",
        response.headers["x-cyllama-replica"],
        completion.usage.prompt_tokens_details.cached_tokens or 0,
    )


def main() -> None:
    ray.init(num_cpus=4, object_store_memory=100 * 2**20, include_dashboard=False, logging_level=40)
    serve.start(http_options={"host": "127.0.0.1", "port": PORT})
    try:
        run(replicas=2)
        with openai.OpenAI(base_url=f"http://127.0.0.1:{PORT}/v1", api_key="any") as client:
            histories: list[list[Any]] = [[] for _ in NAMES]
            first = [
                say(client, history, f"My name is {name}.") for history, name in zip(histories, NAMES, strict=True)
            ]
            second = [say(client, history, "What is my name?") for history in histories]
            print("replicas:", len({replica for _, replica, _ in first}))
            print("every conversation stayed:", [each[1] for each in first] == [each[1] for each in second])
            run(replicas=1)
            third = [say(client, history, "Tell me my name again.") for history in histories]
            print("replicas:", len({replica for _, replica, _ in third}))
            print(
                "every session came along:",
                all(after[2] > before[2] for before, after in zip(second, third, strict=True)),
            )
            print(third[0][0])
    finally:
        serve.shutdown()
        ray.shutdown()


if __name__ == "__main__":
    main()
