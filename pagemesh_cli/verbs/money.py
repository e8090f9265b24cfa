"""Money for people: exact, never rounded."""

from pagemesh.common.v1 import money_pb2


def money(amount: money_pb2.Money) -> str:
    """Such as `0.002150 USD`: micro-units are exact at six places."""
    return f"{amount.micros // 1_000_000}.{amount.micros % 1_000_000:06d} {amount.currency or 'USD'}"
