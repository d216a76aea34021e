"""Where a file says what stands at a place of the matrix that is made of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Location = tuple[Any, ...]


class Places:
    """Leads from a place in a matrix back to the key of the file that it comes from.

    Groups and axes write entries that no file holds: `methods.kd+low.training.learning_rate` is `axes.rate.low.training.learning_rate`.
    """

    def __init__(self, *layers: Mapping[Location, Location]) -> None:
        """layers: what each stage of making the matrix wrote, and what it was made of; the first stage first."""
        self._layers = layers

    def then(self, layer: Mapping[Location, Location]) -> Places:
        """These places with one more stage."""
        return Places(*self._layers, layer)

    def __call__(self, location: Sequence[Any]) -> Location:
        """The place in the file. A place that no stage wrote is its own."""
        found = tuple(location)
        for layer in reversed(self._layers):
            for length in range(len(found), 0, -1):
                if found[:length] in layer:
                    found = (*layer[found[:length]], *found[length:])
                    break
        return found
