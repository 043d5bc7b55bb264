"""Quantities of Kubernetes (8Gi, 500m) as numbers."""

from __future__ import annotations

from decimal import Decimal

from kubernetes.utils.quantity import parse_quantity


def number_of(quantity: str) -> Decimal:
    """The number that a quantity stands for. Raises ValueError."""
    found: Decimal = parse_quantity(quantity)
    return found
