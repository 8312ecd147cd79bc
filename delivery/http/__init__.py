"""Outgoing HTTP: one client for each event loop, that reaches nothing it should not.

networks   which addresses may be reached       transport  httpx's requests, carried by aiohttp
client     the shared client, and one exchange  reach      a connection on which nothing is said
"""

from delivery.http.client import Call, Client, Unreachable
from delivery.http.networks import BlockedAddress, problem_with_url

__all__ = ["BlockedAddress", "Call", "Client", "Unreachable", "problem_with_url"]
