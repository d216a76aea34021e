"""The licences of what a student was made of, from the cards on the hub where the folders did not have them."""

from __future__ import annotations

import logging
from pathlib import Path

from dskd.training.provenance import Origin, Provenance, license_in

log = logging.getLogger(__name__)


def with_hub_licenses(provenance: Provenance) -> Provenance:
    """The same with the licences that cards on the hub name; a card that cannot be read leaves a notice and no licence."""
    return provenance.model_copy(
        update={
            "teacher": provenance.teacher and _asked(provenance.teacher, "model"),
            "student": _asked(provenance.student, "model"),
            "data": _asked(provenance.data, "dataset"),
        }
    )


def _asked(origin: Origin, kind: str) -> Origin:
    if origin.hub is None or origin.license is not None:
        return origin
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    try:
        card = hf_hub_download(origin.hub, "README.md", revision=origin.revision, repo_type=kind)
    except LocalEntryNotFoundError:
        log.warning("the card of %s is not here and the hub cannot be asked: its licence is not known", origin.hub)
        return origin
    except EntryNotFoundError:
        return origin  # it has no card
    except OSError as error:
        reason = str(error).strip().partition("\n")[0]
        log.warning("the card of %s cannot be read (%s): its licence is not known", origin.hub, reason)
        return origin
    return origin.model_copy(update={"license": license_in(Path(card))})
