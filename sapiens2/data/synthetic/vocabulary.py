"""The part classes by name, as the renderer uses them. A test holds them to `sapiens2.tasks.vocabulary`."""

from __future__ import annotations

from sapiens2.tasks.vocabulary import parts

CLASS: dict[str, int] = {name: index for index, name in enumerate(parts().names)}
