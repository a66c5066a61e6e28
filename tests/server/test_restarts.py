"""What is there after a restart: responses, where the server has a folder for them."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import Any

import openai
import pytest

from cyllama_server import responses_store
from cyllama_server.errors import ApiError
from cyllama_server.responses_store import MOST_RESPONSES, StoredResponse, StoredResponses
from cyllama_server.tenants import Tenant

from ..support.server import ServerProcess

ADA, BEN = Tenant("ada"), Tenant("ben")


def respond(server: ServerProcess, key: str, text: str, **options: Any) -> Any:
    with openai.OpenAI(base_url=server.v1, api_key=key, max_retries=0) as client:
        return client.responses.create(model="tiny-chat", input=text, temperature=0, **options)


def test_a_conversation_goes_on_after_a_restart(tmp_path: Path):
    arguments = ("--session-dir", str(tmp_path), "--api-key", "ada", "--api-key", "ben")
    with ServerProcess(*arguments) as server:
        first = respond(server, "ada", "My name is Ada.")
        unstored = respond(server, "ada", "My name is Ada.", store=False)
        server.stop()
    with ServerProcess(*arguments) as server:
        headers = {"Authorization": "Bearer ada"}
        assert respond(server, "ada", "What is my name?", previous_response_id=first.id).output_text == (
            "Your name is Ada."
        )
        stored = server.http.get(f"/v1/responses/{first.id}", headers=headers).json()
        assert stored["output"] == first.model_dump(mode="json", exclude_unset=True)["output"]
        for key, response_id in (("ben", first.id), ("ada", unstored.id)):
            with pytest.raises(openai.BadRequestError, match="there is no response"):
                respond(server, key, "What is my name?", previous_response_id=response_id)
        assert server.http.delete(f"/v1/responses/{first.id}", headers=headers).json()["deleted"] is True
        assert server.http.get(f"/v1/responses/{first.id}", headers=headers).status_code == 404
    with ServerProcess(*arguments) as server:
        assert server.http.get(f"/v1/responses/{first.id}", headers=headers).status_code == 404


def stored(number: int) -> StoredResponse:
    return StoredResponse({"id": f"resp_{number:08x}"}, [{"role": "user", "content": f"{number} \U0001f98a"}], None)


def reopened(responses: StoredResponses, folder: Path) -> StoredResponses:
    responses.close()
    return StoredResponses(folder)


async def test_the_latest_responses_are_kept_and_others_removed(tmp_path: Path):
    responses = StoredResponses(tmp_path)
    for number in range(MOST_RESPONSES + 5):
        responses.add(ADA, stored(number))
    responses.add(BEN, stored(1))
    responses = reopened(responses, tmp_path)
    assert len(list(tmp_path.glob("ada/*.json"))) == MOST_RESPONSES
    assert await responses.find(ADA, "resp_00000005") == stored(5)
    assert await responses.find(BEN, "resp_00000001") == stored(1)
    with pytest.raises(ApiError):
        await responses.find(ADA, "resp_00000001")
    await responses.remove(ADA, "resp_00000005")
    with pytest.raises(ApiError):
        await responses.find(ADA, "resp_00000005")
    responses.close()


@pytest.mark.parametrize("has_folder", [True, False])
async def test_responses_with_large_images_are_kept_up_to_a_number_of_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_folder: bool
):
    monkeypatch.setattr(responses_store, "MOST_BYTES", 40_000)
    responses = StoredResponses(tmp_path if has_folder else None)
    seen = [with_image(number, 9_000) for number in range(6)]
    for response in seen:
        responses.add(ADA, response)
    assert await found_of(responses, range(6)) == [2, 3, 4, 5]
    if has_folder:
        responses = reopened(responses, tmp_path)
    assert await responses.find(ADA, "resp_00000002") == seen[2]  # now it was used last
    responses.add(ADA, with_image(6, 18_000))
    assert await found_of(responses, range(7)) == [2, 5, 6]
    responses.add(ADA, with_image(7, 80_000))  # the client may go on with it
    assert await found_of(responses, range(8)) == [7]
    responses.add(ADA, stored(8))
    assert await found_of(responses, range(9)) == [8]
    responses.close()
    assert len(list(tmp_path.glob("ada/*.json"))) == has_folder


async def test_the_bytes_of_all_responses_are_counted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(responses_store, "MOST_BYTES", 40_000)
    for responses in (StoredResponses(None), StoredResponses(tmp_path)):
        for _ in range(20):  # one that was removed or replaced does not count
            responses.add(ADA, with_image(0, 9_000))
            responses.add(ADA, with_image(1, 9_000))
            await responses.remove(ADA, "resp_00000001")
        responses.add(ADA, with_image(2, 9_000))
        responses.add(ADA, with_image(3, 9_000))
        assert await found_of(responses, range(4)) == [0, 2, 3]
        responses.close()


def with_image(number: int, n: int) -> StoredResponse:
    image = {"type": "input_image", "image_url": f"data:image/png;base64,{'A' * n}"}
    return stored(number)._replace(messages=[{"role": "user", "content": [image]}])


async def found_of(responses: StoredResponses, numbers: range) -> list[int]:
    """Return the numbers of the responses that are kept."""
    found: list[int] = []
    for number in numbers:
        with suppress(ApiError):
            found.append(int((await responses.find(ADA, f"resp_{number:08x}")).body["id"][-8:], 16))
    return found


async def test_two_servers_with_one_folder_know_the_responses_of_each_other(tmp_path: Path):
    one, two = StoredResponses(tmp_path), StoredResponses(tmp_path)
    two.add(ADA, stored(0))
    one.add(ADA, stored(1))
    one.close()
    assert await two.find(ADA, "resp_00000001") == stored(1)
    two.close()


@pytest.mark.parametrize("name", ["../ben/resp_00000001", "resp_zz", "", "resp_00000001/../resp_00000001", "*"])
async def test_what_is_no_id_never_names_a_file(tmp_path: Path, name: str):
    responses = StoredResponses(tmp_path)
    responses.add(BEN, stored(1))
    responses.close()
    with pytest.raises(ApiError, match="there is no response"):
        await StoredResponses(tmp_path).find(ADA, name)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"body": 5}', "\x00"])
async def test_a_damaged_file_is_no_response(tmp_path: Path, text: str):
    (tmp_path / "ada").mkdir()
    (tmp_path / "ada" / "resp_00000001.json").write_text(text)
    responses = StoredResponses(tmp_path)
    with pytest.raises(ApiError, match="there is no response"):
        await responses.find(ADA, "resp_00000001")
    responses.close()


async def test_a_folder_that_cannot_be_written_leaves_responses_in_memory(tmp_path: Path):
    (tmp_path / "ada").write_text("a file in the place of a folder")
    responses = StoredResponses(tmp_path)
    responses.add(ADA, stored(1))
    assert await responses.find(ADA, "resp_00000001") == stored(1)
    responses.close()


async def test_servers_that_share_a_folder_remove_only_what_they_are_asked_to(tmp_path: Path):
    one, two = (StoredResponses(tmp_path, shared=True) for _ in range(2))
    for number in range(MOST_RESPONSES + 5):
        one.add(ADA, stored(number))
    await one.written()
    assert await two.find(ADA, "resp_00000000") == await one.find(ADA, "resp_00000000") == stored(0)
    await two.remove(ADA, "resp_00000000")
    for server in (one, two):
        with pytest.raises(ApiError, match="there is no response"):
            await server.find(ADA, "resp_00000000")
        with pytest.raises(ApiError, match="there is no response"):
            await server.find(BEN, "resp_00000001")
        server.close()
    assert len(list(tmp_path.glob("ada/*.json"))) == MOST_RESPONSES + 4


async def test_a_response_that_one_server_has_deleted_is_gone_at_the_one_that_made_it(tmp_path: Path):
    one, two = (StoredResponses(tmp_path, shared=True) for _ in range(2))
    for number in range(3):
        one.add(ADA, stored(number))
        assert await one.find(ADA, f"resp_{number:08x}") == stored(number)  # also while its file is being written
    assert await two.find(ADA, "resp_00000001") == stored(1)
    await two.remove(ADA, "resp_00000001")
    (tmp_path / "ada" / "resp_00000002.json").unlink()  # as an operator may
    for server in (one, two):
        assert await server.find(ADA, "resp_00000000") == stored(0)
        for number in (1, 2):
            with pytest.raises(ApiError, match="there is no response"):
                await server.find(ADA, f"resp_{number:08x}")
            with pytest.raises(ApiError, match="there is no response"):
                await server.remove(ADA, f"resp_{number:08x}")
        server.close()


async def test_a_response_is_written_although_the_request_that_waits_for_it_is_cancelled(tmp_path: Path):
    responses = StoredResponses(tmp_path)
    for number in range(20):
        responses.add(ADA, stored(number))
        waiting = asyncio.ensure_future(responses.written())
        await asyncio.sleep(0)
        waiting.cancel()
    responses.close()
    assert len(list(tmp_path.glob("ada/*.json"))) == 20
