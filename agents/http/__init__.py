"""The HTTP agent: requests to other services, kept away from addresses that are nobody else's business."""

from .agent import Http
from .models import HttpRequest, HttpResponse

__all__ = ["Http", "HttpRequest", "HttpResponse"]
