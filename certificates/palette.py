"""The colours of what is drawn on paper and in pictures, as `#rrggbb`."""

from certificates.face import Seal

PAPER = "#fbfaf6"
INK = "#15202b"
QUIET = "#5a6672"
LINE = "#d3d5d1"
PETROL = "#0f5c63"

# What a seal is drawn in: none shouts, and none looks like another.
SEALS: dict[Seal, str] = {"full": PETROL, "own_data": "#4a4a8c", "simulated": "#9a5b00"}
TINTS: dict[Seal, str] = {"full": "#e4edec", "own_data": "#e8e8f2", "simulated": "#f5eadb"}
