"""The bundled samples, for those who have no music at hand."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from fastapi import APIRouter
from starlette.responses import JSONResponse

from services.gateway.problems import GatewayCode, Problem, responses
from services.gateway.routes import Asking, TakingGateway
from services.gateway.routes.tracks import TracksAccepted, require_room, submit_files
from services.gateway.uploads import Receiver, Wishes

router = APIRouter(prefix="/v1/samples", tags=["tracks"])

#: Where a clone of the repository has them; elsewhere they are not installed.
FOLDER: Final = Path(__file__).resolve().parents[3] / "samples"


def installed() -> list[Path]:
    """The samples' files, by name."""
    return sorted(FOLDER.glob("*.mp3"))


@router.post(
    "",
    status_code=202,
    summary="Classify the bundled samples",
    response_model=TracksAccepted,
    responses=responses(GatewayCode.NOT_FOUND, GatewayCode.DISK_FULL, GatewayCode.RATE_LIMITED),
)
def submit(gateway: TakingGateway, client: Asking) -> JSONResponse:
    """As if somebody had uploaded them. `samples` in `GET /v1/info` says how many there are."""
    files = installed()
    if not files:
        raise Problem(GatewayCode.NOT_FOUND, "no samples are installed here; they are in the repository of Tonestream")
    client.submit(1)
    require_room(gateway)
    receiver = Receiver(gateway.blobs, gateway.uploads, gateway.settings.fetch_max_bytes)
    try:
        for file in files:
            receiver.begin(file.name)
            receiver.write(file.read_bytes())
            receiver.end()
        return submit_files(gateway, client, receiver, Wishes.of({}), None)
    except BaseException:
        receiver.discard()
        raise
