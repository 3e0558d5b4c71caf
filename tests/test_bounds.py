"""What becomes of replies that break a rule, in every world: recorded, asked again, refused."""

from __future__ import annotations

TEA = {
    "id": "org.tea",
    "tier": 2,
    "kind": "restriction",
    "text": "Do not mention tea.",
    "source": "house rules",
}
REFUSAL = "Nothing about that here."
